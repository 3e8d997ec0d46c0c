-- Takes a lease, if nobody else holds it, and gives it a fence.
-- Modelled in tests/it/model/lease.rs.
-- KEYS[1] lease   KEYS[2] last fence of the duty   KEYS[3] who wants it
-- ARGV[1] caller   ARGV[2] time to live of the lease, ms   ARGV[3] of the fence, ms
-- ARGV[4] 1 when it is the caller's turn: then the holder is told
-- Returns {1, fence, 1 when somebody held it lately} when taken, {0, remaining ms} when held
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  if ARGV[4] == '1' then redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2]) end
  return {0, redis.call('PTTL', KEYS[1])}
end
-- The clock, pushed forward: above every fence given before, also above one that was lost.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = redis.call('GET', KEYS[2])
local fence = math.max(now, tonumber(last or '0') + 1)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', ARGV[3])
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
return {1, fence, last and 1 or 0}
