"""One of three nodes is killed while all are asked."""

import json
import time

from ..fleet import Fleet, Stage
from ..mcp import Request
from ..measure import Bench
from ..nodes import name as node_name
from ..quantiles import brief
from ..scenario import Fact, Findings, Pace, Situation
from ..steady import Steady, kinds

_NODES = 3
_RATE = 150
_SERVERS = 20
# `cluster.lease_ttl`.
_LEASE = 6.0


def _play(fleet: Fleet, _: Bench, pace: Pace) -> Findings:
    around = pace.pick(2, 15)
    servers = {server: fleet.address(server) for server in ("demo", "sessions")}
    servers |= {f"s{number:02}": fleet.address("few") for number in range(_SERVERS)}
    with fleet.nodes(_NODES, servers) as stage:
        # One to probe and one to watch each.
        wanted = 2 * len(servers)
        _until_held(stage, wanted, _NODES, 30)
        with Steady(stage.nodes, kinds(stage.nodes, fleet.upstream.host), _RATE) as clients:
            time.sleep(around)
            killed = time.monotonic()
            stage.nodes.kill(_NODES - 1)
            taken_over = _until_held(stage, wanted, _NODES - 1, 4 * _LEASE)
            time.sleep(around)
    failures = [asked for asked in clients.asked if asked.wrong]
    retried = sum(asked.was_retried for asked in clients.asked)
    cut_off = sum(asked.was_cut_off for asked in clients.asked)
    after = sorted(asked.latency_ms for asked in clients.asked if killed <= asked.due)
    say_first = f", the first: {(failures[0].wrong or '').replace('|', ' ')[:160]}" if failures else ""
    moved = "not in time" if taken_over is None else f"{taken_over:.1f} s"
    return Findings(
        [
            Fact("requests", f"{len(clients.asked):,}, {retried:,} of them after one retry on a refused connection"),
            Fact("failed requests", f"{len(failures)}{say_first}", "0", not failures),
            Fact("cut off: in flight at the node that was killed", str(cut_off)),
            Fact("after the kill: p50 / p99 / max ms", brief(after)),
            Fact(
                f"until all {wanted} duties run elsewhere",
                moved,
                f"< {2 * _LEASE:g} s",
                taken_over is not None and taken_over < 2 * _LEASE,
            ),
        ]
    )


def _until_held(stage: Stage, wanted: int, nodes: int, seconds: float) -> float | None:
    """How long until so many of the first nodes hold all duties, or nothing if they never do."""
    names = {node_name(number) for number in range(nodes)}
    began = time.monotonic()
    while (took := time.monotonic() - began) < seconds:
        told = json.loads(Request("GET", "/api/cluster").send(stage.nodes.hosts[0]).body)
        held = sum(len(node["duties"]) for node in told["nodes"] if node["id"] in names)
        if held >= wanted:
            return took
        time.sleep(0.1)
    return None


SCENARIO = Situation("node-killed", f"one of {_NODES} nodes is killed; {_RATE} requests per second at any of them", _play)
