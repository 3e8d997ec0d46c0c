-- Takes a lock, if nobody holds it, and gives it a fence.
-- Modelled in tests/it/model/cache.rs.
-- KEYS[1] lock   KEYS[2] fence counter of the server and method
-- ARGV[1] the caller's token   ARGV[2] time to live of the lock, ms   ARGV[3] of the counter, ms
-- Returns {1, fence} when taken, {0, remaining ms} when held
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {0, redis.call('PTTL', KEYS[1])}
end
-- The clock, pushed forward: unique among all fences, and above those of a counter that was lost.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local fence = math.max(now, tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', ARGV[3])
return {1, fence}
