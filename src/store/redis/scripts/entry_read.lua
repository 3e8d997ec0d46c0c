-- Looks at a cache entry and at the invalidations that concern it.
-- Modelled in tests/it/model/cache.rs.
-- KEYS[1] entry   KEYS[2] epoch of the whole subject   KEYS[3] epoch of the part (or KEYS[2] again)
-- ARGV[1] the generation the caller has, or an empty text
-- Returns {now ms, epoch, 0}                                     nothing there
--         {now ms, epoch, 1}                                     the caller's generation
--         {now ms, epoch, 2, generation, fetched-at ms, payload} another entry
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = math.max(
  tonumber(redis.call('GET', KEYS[2]) or '0'),
  tonumber(redis.call('GET', KEYS[3]) or '0'))
local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation then return {now, epoch, 0} end
if generation == ARGV[1] then return {now, epoch, 1} end
local entry = redis.call('HMGET', KEYS[1], 'fetched', 'payload')
return {now, epoch, 2, tonumber(generation), tonumber(entry[1]), entry[2]}
