-- Gives a lock back if, and only if, the caller still holds it, and says so.
-- Modelled in tests/it/model/cache.rs.
-- KEYS[1] lock   ARGV[1] the caller's token   ARGV[2] channel   ARGV[3] slot
-- Returns 1 when given back, 0 when another holds it or it has expired
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], 'released ' .. ARGV[3])
return 1
