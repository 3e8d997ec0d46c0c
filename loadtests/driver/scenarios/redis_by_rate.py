"""What a fleet says to its Redis must not grow with how much it is asked."""

import time

from .. import mcp, redis
from ..answers import MESSAGE, is_ok
from ..fleet import Fleet, Stage
from ..generators import wrk
from ..measure import Bench
from ..scenario import Fact, Findings, Pace, Situation
from ..tables import counts

_NODES = 3


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    seconds = pace.pick(3, 15)
    rows = []
    rates = {}
    with fleet.nodes(_NODES, {server: fleet.address(server) for server in ("demo", "sessions")}) as stage:
        requests = _requests(stage)
        # Scripts are loaded, servers known, duties spread.
        wrk.run(stage.nodes.hosts, requests, _NODES, 1, bench.scratch)
        time.sleep(pace.pick(4, 20))
        for name, connections in (("nobody asks", 0), ("3 connections", 3), ("63 connections", 63)):
            before, began = redis.commands(stage.redis_port), time.monotonic()
            if connections:
                asked = wrk.run(stage.nodes.hosts, requests, connections, seconds, bench.scratch).requests
            else:
                time.sleep(seconds)
                asked = 0
            took = time.monotonic() - began
            ran = redis.between(before, redis.commands(stage.redis_port))
            rates[name] = sum(ran.values()) / took
            rows.append((name, f"{asked / took:,.0f}", f"{rates[name]:.1f}", counts(ran)))
    idle, *_, most = rates.values()
    grown = most - idle
    flat = Fact("more commands per second when asked most", f"{grown:+.1f}", "≤ idle × 0.25 + 2", grown <= idle * 0.25 + 2)
    return Findings([flat], ("load", "requests/s", "commands/s", "in all"), rows)


def _requests(stage: Stage) -> list[mcp.Request]:
    session = mcp.open_session(stage.nodes.hosts[0], "/mcp/sessions")
    requests = [
        mcp.modern("/mcp/demo", "tools/call", "echo", arguments={"message": MESSAGE}),
        mcp.legacy("/mcp/sessions", session, "tools/call", name="echo", arguments={"message": MESSAGE}),
        mcp.modern("/mcp/demo", "tools/list"),
    ]
    for host in stage.nodes.hosts:
        for request in requests:
            is_ok(request.send(host))
    return requests


SCENARIO = Situation("redis-by-rate", f"calls, calls in a session and lists at {_NODES} nodes, from none to all they can", _play)
