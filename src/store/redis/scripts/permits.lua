-- Replaces what one node holds of a replica's permits, so that all together hold at most so many.
-- The same arithmetic as `store/permits.rs`.
-- KEYS[1] permits: hash of holder to '<until ms> <held> <wanted>'
-- ARGV[1] holder   ARGV[2] most for all   ARGV[3] what it keeps   ARGV[4] what it wants   ARGV[5] time to live, ms
-- Returns {held, allowed}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder, max, keep = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local wanted, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])
local lines = redis.call('HGETALL', KEYS[1])
local others, wants = 0, {{wanted, holder}}
for i = 1, #lines, 2 do
  local ends, held, want = string.match(lines[i + 1], '^(%d+) (%d+) (%d+)$')
  if not ends or tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], lines[i])
  elseif lines[i] ~= holder then
    others = others + tonumber(held)
    wants[#wants + 1] = {tonumber(want), lines[i]}
  end
end
if keep == 0 and wanted == 0 then
  redis.call('HDEL', KEYS[1], holder)
  return {0, 0}
end
table.sort(wants, function(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end)
local place = 1
while wants[place][2] ~= holder do place = place + 1 end
-- Small wishes are granted, the rest is divided evenly; what cannot be divided goes round.
local fair, left = 0, max
for at = 1, #wants do
  local among = #wants - at + 1
  if wants[at][1] * among <= left then
    if at == place then
      fair = wants[at][1]
      break
    end
    left = left - wants[at][1]
  else
    local rest = left % among
    fair = math.floor(left / among)
    if (place - at + tonumber(time[1])) % among < rest then fair = fair + 1 end
    break
  end
end
wanted = math.min(wanted, fair)
local held = math.min(math.max(max - others, 0), math.max(keep, wanted))
redis.call('HSET', KEYS[1], holder, string.format('%.0f %d %d', now + ttl, held, tonumber(ARGV[4])))
redis.call('PEXPIRE', KEYS[1], ttl)
return {held, math.min(held, wanted)}
