-- Sends the requests of a plan that the driver has written, each with an id of
-- its own, and prints what it saw as one line of JSON.
--
-- PLAN=FILE wrk ... -s wrk.lua URL, where FILE returns
-- { threads = N, hosts = { "HOST:PORT", ... }, requests = { { part, ... }, ... } }
-- A request is its parts with its id in between. With hosts, each thread asks one.

local threads = 0
local hosts = dofile(os.getenv("PLAN")).hosts

function setup(thread)
    thread:set("number", threads)
    if #hosts > 0 then
        local host, port = hosts[threads % #hosts + 1]:match("(.*):(%d+)")
        thread.addr = wrk.lookup(host, port)[1]
    end
    threads = threads + 1
end

function init()
    local plan = dofile(os.getenv("PLAN"))
    mine = {}
    for i, request in ipairs(plan.requests) do
        -- Requests differ in their session: one that is asked of one host only
        -- belongs to one thread.
        if #plan.requests < plan.threads or #plan.hosts > 0 or (i - 1) % plan.threads == number then
            mine[#mine + 1] = request
        end
    end
    turn = 0
    -- Ten digits, whatever happens: Content-Length is fixed.
    id = 1000000000 + number * 1000000000
end

function request()
    turn = turn % #mine + 1
    local chosen = mine[turn]
    if not chosen[2] then
        return chosen[1]
    end
    id = id + 1
    return table.concat(chosen, string.format("%d", id))
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'JSON {"requests":%d,"seconds":%f,"bytes":%d,"p50_ms":%f,"p99_ms":%f,"p999_ms":%f,"max_ms":%f,'
            .. '"failed":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}}\n',
        summary.requests, summary.duration / 1e6, summary.bytes,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3,
        errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
