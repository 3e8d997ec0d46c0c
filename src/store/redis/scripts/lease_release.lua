-- Gives a lease back if, and only if, the caller still holds it under the fence it names:
-- one that arrives late must not end what the same holder was given since.
-- Modelled in tests/it/model/lease.rs.
-- KEYS[1] lease   KEYS[2] last fence of the duty   KEYS[3] who wants it
-- ARGV[1] holder   ARGV[2] fence
-- Returns 1 when given back, 0 when another holds it or it has expired
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
