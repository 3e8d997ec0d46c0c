"""Redis stops for a minute and comes back empty, while three nodes are asked."""

import time

from .. import redis
from ..fleet import Fleet
from ..measure import Bench
from ..quantiles import brief
from ..scenario import Fact, Findings, Pace, Situation
from ..steady import Asked, Steady, kinds

_NODES = 3
_RATE = 150


def _play(fleet: Fleet, _: Bench, pace: Pace) -> Findings:
    around, away = pace.pick(2, 15), pace.pick(5, 60)
    servers = {server: fleet.address(server) for server in ("demo", "sessions")}
    with fleet.nodes(_NODES, servers) as stage:
        with Steady(stage.nodes, kinds(stage.nodes, fleet.upstream.host), _RATE) as clients:
            began = time.monotonic()
            time.sleep(around)
            stopped = time.monotonic()
            stage.processes.stop("redis", 10)
            time.sleep(away)
            back = time.monotonic()
            redis.start(stage.processes, stage.redis_port)
            time.sleep(around)
            ended = time.monotonic()
    spans = {
        "before": clients.between(began, stopped),
        f"Redis is stopped ({away} s)": clients.between(stopped, back),
        "Redis is back, empty": clients.between(back, ended),
    }
    failures = [asked for asked in clients.asked if asked.wrong]
    facts = [Fact("failed requests", _say(failures), "0", not failures)]
    rows = [(name, *_cells(asked)) for name, asked in spans.items()]
    return Findings(facts, ("span", "requests", "p50 / p99 / max ms", "failed"), rows)


def _cells(asked: list[Asked]) -> tuple[str, str, str]:
    latencies = sorted(one.latency_ms for one in asked)
    return f"{len(asked):,}", brief(latencies), str(sum(one.wrong is not None for one in asked))


def _say(failures: list[Asked]) -> str:
    if not failures:
        return "0"
    first = failures[0]
    return f"{len(failures)}, the first a {first.kind}: {(first.wrong or '').replace('|', ' ')[:160]}"


SCENARIO = Situation(
    "redis-stopped", f"calls, calls in sessions and lists at any of {_NODES} nodes, {_RATE}/s, while Redis is stopped", _play
)
