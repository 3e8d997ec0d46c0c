-- Takes up to so many tokens of a rate limit (GCRA). The same as `take` in src/store/rates.rs.
-- KEYS[1] limit: the time until which the tokens taken are spread, us
-- ARGV[1] tokens per ARGV[2] us   ARGV[3] burst   ARGV[4] tokens wanted
-- Returns {tokens granted, us until the next one when none was}
local count, per = tonumber(ARGV[1]), tonumber(ARGV[2])
local function cost(tokens) return math.ceil(tokens * per / count) end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local spread = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
-- The clock may have gone back, e.g. in a failover: nobody waits for longer than a burst.
spread = math.min(spread, now + cost(tonumber(ARGV[3])))
local room = cost(tonumber(ARGV[3])) - (spread - now)
local granted = math.min(math.floor(room * count / per), tonumber(ARGV[4]))
if granted < 1 then return {0, cost(1) - room} end
spread = spread + cost(granted)
-- What ends is a limit that is whole again.
redis.call('SET', KEYS[1], string.format('%.0f', spread), 'PX', math.ceil((spread - now) / 1000))
return {granted, 0}
