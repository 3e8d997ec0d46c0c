"""CPU per call must not grow with the number of servers."""

import time
from contextlib import ExitStack

from .. import loads, mcp
from ..answers import MESSAGE, says
from ..comparisons import turns
from ..fleet import Fleet
from ..measure import Bench
from ..scenario import Fact, Findings, Pace, Situation
from ..tables import SAMPLE_COLUMNS, sample_cells
from .flat import at_rest, is_flat

# What more lists than fit into `cache.memory` do to calls.
_LARGE = "1,000 with 50 tools each"
_USUAL = (("1", 1, "few"), ("30", 30, "few"), ("1,000", 1000, "few"), (_LARGE, 1000, "demo"))
_QUICK = (("1", 1, "few"), ("100", 100, "few"))


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    with ExitStack() as opened:
        asked = {}
        for name, number, server in pace.pick(_QUICK, _USUAL):
            servers = {f"s{at:04}": fleet.address(server) for at in range(number)}
            stage = opened.enter_context(fleet.nodes(1, servers))
            subject = stage.subject(name)
            requests = [
                mcp.modern(f"/mcp/{server}", "tools/call", "echo", arguments={"message": MESSAGE}) for server in servers
            ]
            # What a server costs once is not what a call costs.
            for request in requests:
                says(request.send(subject.host), MESSAGE)
            asked[subject] = loads.on([subject.host], requests, bench)
        # Until every server has somebody who probes it.
        time.sleep(pace.pick(3, 20))
        resting = {subject.name: at_rest(subject, pace.pick(1, 15)) for subject in asked}
        samples = turns(bench, asked, pace)
    facts = [Fact(f"CPU at rest, servers: {name}", f"{rest:.4f} s per s") for name, rest in resting.items()]
    large = samples.pop(_LARGE, None)
    facts.append(is_flat("CPU per call, without that at rest", samples, resting))
    if large:
        samples[_LARGE] = large
        facts.append(is_flat("CPU per call, without that at rest", samples, resting))
    rows = [(name, *sample_cells(of)) for name, of in samples.items()]
    return Findings(facts, ("servers", *SAMPLE_COLUMNS), rows, samples)


SCENARIO = Situation(
    "cpu-by-servers", "calls of 1 KB spread over 1 to 1,000 servers of one node, with five tools each", _play
)
