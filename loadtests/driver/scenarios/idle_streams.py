"""Ten thousand clients that listen and say nothing."""

import time

from .. import machine, mcp, sockets
from ..fleet import Fleet
from ..generators import wrk
from ..mcp import Request
from ..measure import Bench
from ..quantiles import quantile
from ..scenario import Fact, Findings, Pace, Situation
from ..tables import SAMPLE_COLUMNS, sample_cells

_STREAMS = 10_000
_LISTEN = mcp.modern("/mcp/changing", "subscriptions/listen", notifications={"toolsListChanged": True})
_CALL = mcp.modern("/mcp/changing", "tools/call", "echo", arguments={"message": "still there"})


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    number = pace.pick(500, _STREAMS)
    with fleet.nodes(1, {"changing": fleet.address("changing")}) as stage:
        node = stage.subject("node")
        pid, host = node.pids[0], node.host
        _CALL.send(host)
        files, memory = machine.open_files(pid), machine.memory_of(pid)["resident"]
        port = int(fleet.upstream.host.rpartition(":")[2])
        watches = machine.connections_to(node.pids, port)
        began = time.monotonic()
        with sockets.held(host, number, _LISTEN) as crowd:
            took = time.monotonic() - began
            each = (machine.memory_of(pid)["resident"] - memory) / number
            upstream = machine.connections_to(node.pids, port) - watches
            seconds = pace.pick(3, 30)
            idle = machine.cpu_of(node.pids).total
            time.sleep(seconds)
            idle = (machine.cpu_of(node.pids).total - idle) / seconds
            sample = bench.sample(node, lambda: wrk.run([host], [_CALL], 16, pace.seconds, bench.scratch))
            changed = time.monotonic()
            Request("POST", "/change").send(fleet.upstream.host)
            heard = crowd.until_all_hear(b"notifications/tools/list_changed", pace.pick(10, 60))
        time.sleep(2)
        left = machine.open_files(pid) - files
    last = (quantile(heard, 1) - changed) * 1000
    return Findings(
        [
            Fact("streams held", f"{number:,}, opened in {took:.1f} s", f"{_STREAMS:,}", None if pace.is_quick else True),
            Fact("memory per stream", f"{each:.1f} KiB"),
            Fact("further connections to the upstream", str(upstream), "≤ 1", upstream <= 1),
            Fact("CPU while nothing happens", f"{idle:.3f} s per s"),
            Fact("streams that hear of a change", f"{len(heard):,}", f"{number:,}", len(heard) == number),
            Fact("the last one after", f"{last:.0f} ms"),
            Fact("files left open when all are gone", str(left), "a few", left < 50),
        ],
        ("calls meanwhile", *SAMPLE_COLUMNS),
        [("16 connections", *sample_cells([sample]))],
        {"calls": [sample]},
    )


SCENARIO = Situation("idle-streams", f"{_STREAMS:,} streams of `subscriptions/listen` at one node", _play)
