-- Sets a lock's time to live if, and only if, the caller still holds it.
-- Modelled in tests/it/model/cache.rs.
-- KEYS[1] lock   ARGV[1] the caller's token   ARGV[2] new time to live, ms
-- Returns 1 when extended, 0 when another holds it or it has expired
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
