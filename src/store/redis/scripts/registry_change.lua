-- Puts a server into the registry or takes one out, unless the registry is older than the caller knows.
-- KEYS[1] registry: hash of name to '<edition> <definition>', and ':edition'
-- ARGV[1] put | remove   ARGV[2] name   ARGV[3] definition   ARGV[4] edition the caller knows   ARGV[5] most servers
-- ARGV[6] edition that the entry has to have, 0 for none, '' for any or none
-- Returns behind | moved | created | replaced | unchanged | full | removed | unknown
local last = tonumber(redis.call('HGET', KEYS[1], ':edition') or '0')
if last < tonumber(ARGV[4]) then return 'behind' end
local stored = redis.call('HGET', KEYS[1], ARGV[2])
if ARGV[6] ~= '' and string.match(stored or '0 ', '^(%d+) ') ~= ARGV[6] then return 'moved' end
local outcome
if ARGV[1] == 'remove' then
  if not stored then return 'unknown' end
  outcome = 'removed'
elseif not stored then
  -- The field of the edition is no server.
  if redis.call('HLEN', KEYS[1]) - (last > 0 and 1 or 0) >= tonumber(ARGV[5]) then return 'full' end
  outcome = 'created'
elseif string.match(stored, '^%d+ (.*)$') == ARGV[3] then
  return 'unchanged'
else
  outcome = 'replaced'
end
-- The clock, pushed forward: above every edition before.
local time = redis.call('TIME')
local edition = string.format('%.0f', math.max(time[1] * 1000000 + time[2], last + 1))
if outcome == 'removed' then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], edition .. ' ' .. ARGV[3])
end
redis.call('HSET', KEYS[1], ':edition', edition)
return outcome
