-- Appends to an open stream and wakes its readers. Ids are 0-1, 0-2, ...:
-- consecutive, so that a reader sees when entries were dropped. Needs Redis 7.
-- KEYS[1] stream   ARGV[1] payload   ARGV[2] entries to keep   ARGV[3] time to live, ms   ARGV[4] channel
-- Returns the position, or 0 when there is no such stream
local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', ARGV[2], '0-*', 'p', ARGV[1])
if not id then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], '')
return tonumber(string.sub(id, 3))
