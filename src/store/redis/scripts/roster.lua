-- Changes one node's line of a roster, drops lines that are too old, and reads the rest.
-- KEYS[1] roster: hash of writer to '<ms> <payload>'
-- ARGV[1] writer   ARGV[2] keep | put | remove   ARGV[3] payload   ARGV[4] oldest age of a line, ms
-- Returns {writer, age ms, payload, writer, age ms, payload, ...}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = tonumber(ARGV[4])
if ARGV[2] == 'put' then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[3])
  redis.call('PEXPIRE', KEYS[1], oldest)
elseif ARGV[2] == 'remove' then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
local reply = {}
local lines = redis.call('HGETALL', KEYS[1])
for i = 1, #lines, 2 do
  local written, payload = string.match(lines[i + 1], '^(%d+) (.*)$')
  -- The clock may have gone back, e.g. in a failover: then the line is new.
  local age = written and math.max(now - tonumber(written), 0)
  if age and age <= oldest then
    reply[#reply + 1] = lines[i]
    reply[#reply + 1] = age
    reply[#reply + 1] = payload
  else
    redis.call('HDEL', KEYS[1], lines[i])
  end
end
return reply
