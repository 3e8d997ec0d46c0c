"""Three nodes, nothing sticky: sessions are used at every node, whoever opened them."""

from contextlib import ExitStack

from .. import loads, mcp
from ..answers import MESSAGE, says
from ..comparisons import turns
from ..fleet import Fleet
from ..loads import CONNECTIONS
from ..measure import Bench
from ..scenario import Fact, Findings, Pace, Situation
from ..tables import SAMPLE_COLUMNS, cpu, median, sample_cells, times

_SESSIONS = 63
_PATH = "/mcp/sessions"


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    with ExitStack() as opened:
        asked = {}
        for number in (1, 3):
            stage = opened.enter_context(fleet.nodes(number, {"sessions": fleet.address("sessions")}))
            hosts = stage.nodes.hosts
            sessions = [mcp.open_session(hosts[at % number], _PATH) for at in range(_SESSIONS)]
            requests = [
                mcp.legacy(_PATH, session, "tools/call", name="echo", arguments={"message": MESSAGE})
                for session in sessions
            ]
            # Each session at each node.
            for host in hosts:
                for request in requests:
                    says(request.send(host), MESSAGE)
            subject = stage.subject(f"{number} nodes" if number > 1 else "1 node")
            asked[subject] = loads.on(hosts, requests, bench, CONNECTIONS - CONNECTIONS % number)
        samples = turns(bench, asked, pace)
    one, three = samples["1 node"], samples["3 nodes"]
    ratio = median(three, cpu) / median(one, cpu)
    failed = sum(sample.seen.failures for sample in three)
    return Findings(
        [
            Fact("failed or lost at three nodes", str(failed), "0", failed == 0),
            Fact("CPU per call, all three nodes to one alone", times(ratio), "≤ 1.25 ×", ratio <= 1.25),
        ],
        ("sessions at", *SAMPLE_COLUMNS),
        [(name, *sample_cells(of)) for name, of in samples.items()],
        samples,
    )


SCENARIO = Situation(
    "any-node", f"calls in {_SESSIONS} sessions of 2025-11-25, each used at every node, 64 connections", _play
)
