-- Makes the registry what it was at an edition, if only an older one is known.
-- KEYS[1] registry: hash of name to '<edition> <definition>', and ':edition'
-- ARGV[1] edition   ARGV[2..] name, '<edition> <definition>', name, ...
-- Returns 1 when restored, 0 when the registry is not older
local last = tonumber(redis.call('HGET', KEYS[1], ':edition') or '0')
if last >= tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], ':edition', ARGV[1])
return 1
