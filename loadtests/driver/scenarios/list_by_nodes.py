"""The cost of a cached list must not grow with the number of nodes."""

from contextlib import ExitStack

from .. import loads, mcp
from ..answers import has_tools, plain_list
from ..comparisons import turns
from ..fleet import Fleet
from ..measure import Bench
from ..scenario import Fact, Findings, Pace, Situation
from ..tables import SAMPLE_COLUMNS, sample_cells
from .flat import is_flat

_REQUEST = mcp.modern("/mcp/demo", "tools/list")


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    facts = []
    with ExitStack() as opened:
        asked = {}
        for number in pace.pick((1, 3), (1, 3, 10)):
            before = fleet.upstream_counts()["tools/list"]
            stage = opened.enter_context(fleet.nodes(number, {"demo": fleet.address("demo")}))
            for host in stage.nodes.hosts:
                has_tools(_REQUEST.send(host), plain_list(fleet.upstream.host, "demo"))
            fetched = fleet.upstream_counts()["tools/list"] - before
            nodes = "1 node" if number == 1 else f"{number} nodes"
            facts.append(Fact(f"upstream fetches by {nodes}", str(fetched), "1", fetched == 1))
            subject = stage.subject(f"{number}", 0)
            asked[subject] = loads.on([subject.host], [_REQUEST], bench)
        samples = turns(bench, asked, pace)
    facts.append(is_flat("CPU per list at the node that is asked", samples))
    rows = [(name, *sample_cells(of)) for name, of in samples.items()]
    return Findings(facts, ("nodes", *SAMPLE_COLUMNS), rows, samples)


SCENARIO = Situation("list-by-nodes", "a cached list of 50 tools, asked of one of 1 to 10 nodes", _play)
