-- Writes a record unless it was last written under a newer fence, and tells all nodes.
-- Modelled in tests/it/model/lease.rs.
-- KEYS[1] record   ARGV[1] fence   ARGV[2] value   ARGV[3] time to live, ms   ARGV[4] channel
-- Returns 1 when written, 0 when refused
local stored = redis.call('HGET', KEYS[1], 'fence')
if stored and tonumber(stored) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'value', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[2])
return 1
