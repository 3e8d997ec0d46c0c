-- Removes a stream and wakes its readers.
-- KEYS[1] stream   ARGV[1] channel
-- Returns 1 when there was one, else 0
local removed = redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[1], '')
return removed
