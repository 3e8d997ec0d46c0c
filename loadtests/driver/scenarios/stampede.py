"""A thousand requests on five nodes for a list that has just expired, or gone stale."""

import time

from .. import answers, mcp, sockets
from ..fleet import Fleet, Stage
from ..mcp import WrongAnswer
from ..measure import Bench
from ..quantiles import brief
from ..scenario import Fact, Findings, Pace, Situation
from ..sockets import Burst

_NODES = 5
_REQUESTS = 1000
_REQUEST = mcp.modern("/mcp/slow", "tools/list")
# Nobody refreshes ahead of time: the burst is what finds the entry too old.
_CACHE = ("[cache]", 'max_fresh = "1s"', "early_refresh = 0.0")
_EXPIRES = (*_CACHE, 'lists = { fresh = "1s", stale = "0s", max_stale = "1s" }')
_GOES_STALE = (*_CACHE, 'lists = { fresh = "1s", stale = "10m", max_stale = "1h" }')


def _play(fleet: Fleet, _: Bench, pace: Pace) -> Findings:
    rows = []
    facts = []
    for name, settings in (("expired", _EXPIRES), ("stale", _GOES_STALE)):
        with fleet.nodes(_NODES, {"slow": fleet.address("slow")}, *settings) as stage:
            fetches = []
            for _round in range(pace.rounds):
                burst, asked = _burst(fleet, stage)
                fetches.append(asked)
                rows.append((name, f"{len(burst.latencies_ms):,}", brief(burst.latencies_ms), str(asked)))
        wanted = "1 each"
        facts.append(Fact(f"upstream fetches, {name}", ", ".join(map(str, fetches)), wanted, set(fetches) == {1}))
    return Findings(facts, ("the list is", "answered", "p50 / p99 / max ms", "upstream fetches"), rows)


def _burst(fleet: Fleet, stage: Stage) -> tuple[Burst, int]:
    hosts = stage.nodes.hosts
    for host in hosts:
        answers.is_ok(_REQUEST.send(host))
    # Until it is too old at every node, and what that set off is over.
    time.sleep(2.5)
    before = fleet.upstream_counts()["tools/list"]
    burst = sockets.burst(hosts, _REQUESTS, _REQUEST)
    # A refresh in the background takes as long as the list.
    time.sleep(0.7)
    fetched = fleet.upstream_counts()["tools/list"] - before
    tools = answers.plain_list(fleet.upstream.host, "slow")
    if not all(b'"tools":' + tools in body for body in burst.bodies):
        raise WrongAnswer("not every answer of the burst was the list")
    return burst, fetched


SCENARIO = Situation(
    "stampede",
    f"{_REQUESTS:,} requests at once on {_NODES} nodes for a list that takes 300 ms and is too old",
    _play,
)
