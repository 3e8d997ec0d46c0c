-- Renews a lease if, and only if, the caller still holds it; its fence lives on with it.
-- Modelled in tests/it/model/lease.rs.
-- KEYS[1] lease   KEYS[2] last fence of the duty   KEYS[3] who wants it
-- ARGV[1] holder   ARGV[2] time to live of the lease, ms   ARGV[3] of the fence, ms
-- Returns 1 when renewed, 2 when renewed and wanted by another, 0 when another holds it or it has expired
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local wanted = redis.call('GET', KEYS[3])
return wanted and wanted ~= ARGV[1] and 2 or 1
