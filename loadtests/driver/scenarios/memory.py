"""What an idle connection and a session cost in memory."""

import time

from .. import machine, mcp, sockets
from ..fleet import Fleet, Stage
from ..measure import Bench
from ..scenario import Fact, Findings, Pace, Situation

_CALL = mcp.modern("/mcp/demo", "tools/call", "echo", arguments={"message": "x"})


def _play(fleet: Fleet, _: Bench, pace: Pace) -> Findings:
    number = pace.pick(300, 10_000)
    servers = {server: fleet.address(server) for server in ("demo", "sessions")}
    facts = []
    rows = []
    with fleet.nodes(1, servers) as stage:
        time.sleep(1)
        rest = _resident(stage)
        facts.append(_below("resident memory of an idle node", rest, 20))
        with sockets.held(stage.nodes.hosts[0], 200, _CALL):
            facts.append(_below("with 200 connections, each used once", _resident(stage), 60))
    with fleet.nodes(1, servers) as stage:
        before = _resident(stage)
        with sockets.held(stage.nodes.hosts[0], number, _CALL):
            rows.append(_row("idle connections (HTTP/1.1, each used once)", number, before, _resident(stage)))
    for path, era in (("/mcp/sessions", "2025-11-25"), ("/mcp/demo", "2026-07-28")):
        with fleet.nodes(1, servers) as stage:
            host = stage.nodes.hosts[0]
            mcp.open_session(host, path)
            before = _resident(stage)
            sessions = mcp.open_sessions(host, path, number)
            for session in sessions:
                mcp.legacy(path, session, "tools/call", name="echo", arguments={"message": "x"}).send(host)
            rows.append(_row(f"sessions, each used once, server of {era}", number, before, _resident(stage)))
    return Findings(facts, ("what", "how many", "before MiB", "with them MiB", "each KiB"), rows)


def _resident(stage: Stage) -> int:
    """In KiB."""
    return machine.memory_of(stage.nodes.pid(0))["resident"]


def _below(what: str, kib: int, mib: int) -> Fact:
    return Fact(what, f"{kib / 1024:.1f} MiB", f"< {mib} MiB", kib < mib * 1024)


def _row(what: str, number: int, before: int, with_them: int) -> tuple[str, ...]:
    each = (with_them - before) / number
    return what, f"{number:,}", f"{before / 1024:.1f}", f"{with_them / 1024:.1f}", f"{each:.2f}"


SCENARIO = Situation("memory", "what 10,000 idle connections and 10,000 sessions cost one node", _play)
