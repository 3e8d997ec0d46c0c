-- Puts everything written with an earlier fence out of date.
-- Modelled in tests/it/model/cache.rs.
-- KEYS[1] fence counter of the server and method   KEYS[2] epoch of the subject
-- ARGV[1] time to live of the counter, ms   ARGV[2] time to live of the epoch, ms
-- ARGV[3] channel   ARGV[4] digest of the subject
-- Returns the epoch
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local epoch = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0') + 1)
local text = string.format('%.0f', epoch)
redis.call('SET', KEYS[1], text, 'PX', ARGV[1])
redis.call('SET', KEYS[2], text, 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], 'invalidated ' .. ARGV[4] .. ' ' .. text)
return epoch
