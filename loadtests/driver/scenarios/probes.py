"""Calls while probes run, and how many probes a fleet makes."""

import time
from contextlib import ExitStack

from .. import loads, mcp
from ..answers import MESSAGE
from ..comparisons import turns
from ..fleet import Fleet
from ..measure import Bench
from ..scenario import Fact, Findings, Pace, Situation
from ..tables import SAMPLE_COLUMNS, cpu, median, sample_cells, times

_SERVERS = 200
_EVERY_SECOND = ("[health]", 'interval = "1s"', 'timeout = "1s"')
_NEVER = ("[health]", "probe = false")
_INTERVAL = 2
_COUNTED = ("[health]", f'interval = "{_INTERVAL}s"', 'timeout = "2s"')


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    servers = {f"s{number:03}": fleet.address("demo") for number in range(_SERVERS)}
    call = mcp.modern("/mcp/s000", "tools/call", "echo", arguments={"message": MESSAGE})
    with ExitStack() as opened:
        asked = {}
        for name, settings in ((f"{_SERVERS} probes per second", _EVERY_SECOND), ("no probes", _NEVER)):
            stage = opened.enter_context(fleet.nodes(1, servers, *settings))
            subject = stage.subject(name)
            asked[subject] = loads.on([subject.host], [call], bench)
        samples = turns(bench, asked, pace)
    with_probes, without = samples.values()
    ratio = median(with_probes, cpu) / median(without, cpu)
    made = median(with_probes, lambda sample: sample.upstream.get("probes", 0) / sample.seen.seconds)
    facts = [
        Fact("probes per second meanwhile", f"{made:.0f}", f"{_SERVERS}", 0.7 * _SERVERS <= made <= 1.3 * _SERVERS),
        Fact("CPU per call, with probes to without", times(ratio)),
    ]
    for number in pace.pick((3,), (1, 3, 10)):
        facts += _counted(fleet, pace, number, servers)
    rows = [(name, *sample_cells(of)) for name, of in samples.items()]
    return Findings(facts, ("while there are", *SAMPLE_COLUMNS), rows, samples)


def _counted(fleet: Fleet, pace: Pace, number: int, servers: dict[str, str]) -> list[Fact]:
    """Probes as the upstream sees them, however many nodes there are."""
    with fleet.nodes(number, servers, *_COUNTED):
        # Until the duties are spread, and the probes after the start are over.
        time.sleep(pace.pick(6, 10))
        intervals = pace.pick(2, 4)
        seen, busiest = _watch(fleet, intervals * _INTERVAL)
    per_interval = seen / len(servers) / intervals
    mean = len(servers) / _INTERVAL / 10
    nodes = f"{number} node{'s' if number > 1 else ''}"
    return [
        Fact(f"probes per replica and interval, {nodes}", f"{per_interval:.2f}", "1", 0.9 <= per_interval <= 1.1),
        Fact(f"busiest 100 ms to the mean, {nodes}", f"{busiest / mean:.1f} ×", "≤ 2 ×", busiest <= 2 * mean),
    ]


def _watch(fleet: Fleet, seconds: float) -> tuple[int, float]:
    """How many probes came, and the most in 100 ms."""
    first = last = fleet.upstream_counts()["probes"]
    began = at = time.monotonic()
    busiest = 0.0
    while at < began + seconds:
        time.sleep(0.1)
        now, count = time.monotonic(), fleet.upstream_counts()["probes"]
        busiest = max(busiest, (count - last) * 0.1 / (now - at))
        at, last = now, count
    return round((last - first) * seconds / (at - began)), busiest


SCENARIO = Situation("probes", f"calls to one server while {_SERVERS} are probed every second, and probes counted", _play)
