-- Gives a lease back if, and only if, the caller still holds it.
-- Modelled in tests/it/model/lease.rs.
-- KEYS[1] lease   KEYS[2] last fence of the duty   KEYS[3] who wants it   ARGV[1] holder
-- Returns 1 when given back, 0 when another holds it or it has expired
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
