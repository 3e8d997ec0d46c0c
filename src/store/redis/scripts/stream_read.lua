-- Reads a stream. Does not block.
-- KEYS[1] stream   ARGV[1] position to read after   ARGV[2] most entries
-- Returns {1, position, payload, position, payload, ...}, or {0} when there is no such stream
if redis.call('EXISTS', KEYS[1]) == 0 then return {0} end
local reply = {1}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(0-' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
  reply[#reply + 1] = tonumber(string.sub(entry[1], 3))
  reply[#reply + 1] = entry[2][2]
end
return reply
