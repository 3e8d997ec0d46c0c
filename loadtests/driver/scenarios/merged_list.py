"""The merged list over fifty servers, one of which accepts everything and never answers."""

import json
import time
from contextlib import ExitStack

from .. import loads, mcp
from ..comparisons import turns
from ..fleet import Fleet
from ..loads import CONNECTIONS
from ..mcp import WrongAnswer
from ..measure import Bench
from ..scenario import Fact, Findings, Pace, Situation
from ..tables import SAMPLE_COLUMNS, cpu, median, sample_cells, times

_SERVERS = 50
_TOOLS_EACH = 5
# `cache.list_deadline`, and what a busy machine may add.
_DEADLINE = 5.0
# In milliseconds: it was not waited for.
_FAST = 500
_REQUEST = mcp.modern("/mcp", "tools/list")


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    well = {f"s{number:02}": fleet.address("few") for number in range(_SERVERS)}
    stalled = {**dict(list(well.items())[1:]), "stalled": f"http://{fleet.upstream.host}/mcp/stalled"}
    with ExitStack() as opened:
        stages = {
            name: opened.enter_context(fleet.nodes(1, servers))
            for name, servers in (("one stalled", stalled), ("all well", well))
        }
        subjects = {name: stage.subject(name) for name, stage in stages.items()}
        firsts = {name: _ask(subject.host) for name, subject in subjects.items()}
        waited = _until_fast(subjects["one stalled"].host, pace.pick(0, 90))
        tools, missing = firsts["one stalled"][1:]
        if tools != (_SERVERS - 1) * _TOOLS_EACH or "stalled" not in missing:
            raise WrongAnswer(f"merged list of {tools} tools, of the rest it says {missing}")
        asked = {
            subject: loads.on([subject.host], [_REQUEST], bench)
            for subject in subjects.values()
        }
        samples = turns(bench, asked, pace)
    ratio = median(samples["one stalled"], cpu) / median(samples["all well"], cpu)
    return Findings(
        [
            Fact("first list, all well", f"{firsts['all well'][0]:.0f} ms"),
            Fact(
                "first list, one stalled",
                f"{firsts['one stalled'][0]:.0f} ms",
                f"≤ {_DEADLINE:g} s and a little",
                firsts["one stalled"][0] <= _DEADLINE * 1000 + 500,
            ),
            Fact("until a list no longer waits for it", "later than was looked" if waited is None else f"{waited:.0f} s"),
            Fact("who is missing is named in `_meta`", "yes", "yes", True),
            Fact("CPU per list, one stalled to all well", times(ratio)),
        ],
        (f"{_SERVERS} servers", *SAMPLE_COLUMNS),
        [(name, *sample_cells(of)) for name, of in samples.items()],
        samples,
    )


def _ask(host: str) -> tuple[float, int, str]:
    """How long it took in milliseconds, how many tools, and what is said of the others."""
    began = time.monotonic()
    answer = _REQUEST.send(host)
    took = (time.monotonic() - began) * 1000
    if answer.status != 200:
        raise WrongAnswer(f"merged list: {answer.status} {answer.body[:300]!r}")
    result = answer.message()["result"]
    return took, len(result["tools"]), json.dumps(result.get("_meta", {}))


def _until_fast(host: str, seconds: float) -> float | None:
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        sent = time.monotonic()
        if _ask(host)[0] < _FAST:
            return sent - began
    return None


SCENARIO = Situation(
    "merged-list", f"one list of {_SERVERS} servers, one of them stalled, {CONNECTIONS} connections", _play
)
