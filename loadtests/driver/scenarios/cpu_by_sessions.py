"""CPU per call must not grow with the number of sessions."""

from contextlib import ExitStack

from .. import loads, mcp
from ..answers import MESSAGE, says
from ..comparisons import turns
from ..fleet import Fleet
from ..generators import wrk
from ..loads import CONNECTIONS
from ..measure import Bench
from ..scenario import Findings, Pace, Situation
from ..tables import SAMPLE_COLUMNS, sample_cells
from .flat import is_flat

_PATH = "/mcp/sessions"


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    with ExitStack() as opened:
        asked = {}
        for number in pace.pick((1, 300), (1, 100, 10_000)):
            stage = opened.enter_context(fleet.nodes(1, {"sessions": fleet.address("sessions")}))
            subject = stage.subject(f"{number:,}")
            requests = [
                mcp.legacy(_PATH, session, "tools/call", name="echo", arguments={"message": MESSAGE})
                for session in mcp.open_sessions(subject.host, _PATH, number)
            ]
            says(requests[-1].send(subject.host), MESSAGE)
            # A session's first call opens one at the server.
            wrk.run([subject.host], requests, CONNECTIONS, pace.pick(1, 8), bench.scratch)
            asked[subject] = loads.on([subject.host], requests, bench)
        samples = turns(bench, asked, pace)
    rows = [(name, *sample_cells(of)) for name, of in samples.items()]
    return Findings([is_flat("CPU per call", samples)], ("sessions", *SAMPLE_COLUMNS), rows, samples)


SCENARIO = Situation("cpu-by-sessions", "calls of 1 KB in 1 to 10,000 sessions of one node", _play)
