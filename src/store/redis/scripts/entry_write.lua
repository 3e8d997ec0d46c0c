-- Writes a cache entry unless a newer generation is stored, and gives the
-- writer's lock back. This is what keeps a paused node from putting old data
-- over new: the caller's fence was given before it began to fetch.
-- Modelled in tests/it/model/cache.rs.
-- KEYS[1] entry   KEYS[2] lock   KEYS[3] epoch of the whole subject   KEYS[4] epoch of the part (or KEYS[3] again)
-- ARGV[1] fence                            ARGV[2] 1 when no lock gave it: then an equal one stays
-- ARGV[3] token of the lock, or empty      ARGV[4] ms since the content was received
-- ARGV[5] time to live, ms   ARGV[6] payload   ARGV[7] channel   ARGV[8] slot
-- Returns {1, generation, epoch} when written, {0, generation in the store} when refused
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] ~= '' and redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('DEL', KEYS[2]) end
local fence = tonumber(ARGV[1])
local stored = tonumber(redis.call('HGET', KEYS[1], 'generation') or '-1')
if stored > fence or (stored == fence and ARGV[2] == '1') then return {0, stored} end
local fetched = now - tonumber(ARGV[4])
redis.call('HSET', KEYS[1],
  'generation', string.format('%.0f', fence),
  'fetched', string.format('%.0f', fetched),
  'payload', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[7], 'written ' .. ARGV[8] .. ' ' .. string.format('%.0f', fence))
local epoch = math.max(
  tonumber(redis.call('GET', KEYS[3]) or '0'),
  tonumber(redis.call('GET', KEYS[4]) or '0'))
return {1, fence, epoch}
