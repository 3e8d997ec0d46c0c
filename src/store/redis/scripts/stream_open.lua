-- Creates an empty stream, or lets an existing one live on.
-- KEYS[1] stream   ARGV[1] time to live, ms
-- Returns 1
if redis.call('EXISTS', KEYS[1]) == 0 then
  -- The only way to an empty stream whose first entry will be 0-1.
  redis.call('XGROUP', 'CREATE', KEYS[1], 'open', '$', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'open')
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
