"""What is asked, what a right answer is, and the figure to reach.

A scenario has variants; each variant is one load that every subject gets in turn.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from . import generators, mcp
from .generators import Seen
from .mcp import Answer, Request, WrongAnswer

CONNECTIONS = 64
TOOLS = 50
# An argument of about a kilobyte; it comes back in the answer.
MESSAGE = "All happy payloads are alike; each unhappy one is unhappy in its own way. " * 13


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    rounds: int = 5
    seconds: float = 10
    # Of the command that says 30 s itself.
    written_seconds: float = 30


@dataclass(frozen=True)
class Figure:
    """What design section 11 asks of the gateway, relative to the bare proxy."""

    cpu_at_most: float | None = None
    throughput_at_least: float | None = None


@dataclass(frozen=True)
class Known:
    """What the upstream says itself, to compare answers with."""

    tools: bytes
    merged: bytes


Requests = AbstractContextManager[list[Request]]


@dataclass(frozen=True)
class Variant:
    name: str
    about: str
    opened: Callable[[str], Requests]
    check: Callable[[Answer, Known], None]
    load: Callable[[str, list[Request], Pace, Path], Seen]
    figure: Figure = field(default_factory=Figure)


@dataclass(frozen=True)
class Scenario:
    name: str
    about: str
    variants: list[Variant]


def know(upstream: str) -> Known:
    """Asks the upstream directly, and looks whether it is the one expected."""
    one = Request("GET", "/mcp/demo/tools/list").send(upstream).body
    merged = Request("GET", "/mcp/*/tools/list").send(upstream).body
    if len(json.loads(one)) != TOOLS or len(json.loads(merged)) != 2 * TOOLS:
        raise WrongAnswer("the upstream has other tools than expected")
    return Known(one, merged)


# Checks


def _echoes(answer: Answer, _: Known) -> None:
    _is_ok(answer)
    if answer.message()["result"]["content"] != [{"type": "text", "text": MESSAGE}]:
        raise WrongAnswer(f"not the echo: {answer.body[:500]!r}")


def _lists_tools(answer: Answer, known: Known) -> None:
    _is_ok(answer)
    # Byte for byte: payloads are not the gateway's to rewrite.
    if b'"tools":' + known.tools not in answer.body:
        raise WrongAnswer(f"not the tools of the upstream: {answer.body[:500]!r}")


def _is_tools_array(answer: Answer, known: Known) -> None:
    _is_ok(answer)
    if answer.body != known.tools:
        raise WrongAnswer(f"not the array of tools: {answer.body[:500]!r}")


def _is_merged_array(answer: Answer, known: Known) -> None:
    _is_ok(answer)
    if json.loads(answer.body) != json.loads(known.merged):
        raise WrongAnswer(f"not the merged tools: {answer.body[:500]!r}")


def _is_ok(answer: Answer) -> None:
    if answer.status != 200:
        raise WrongAnswer(f"status {answer.status}: {answer.body[:500]!r}")


# Loads


def _wrk(host: str, requests: list[Request], pace: Pace, scratch: Path) -> Seen:
    return generators.wrk(host, requests, CONNECTIONS, pace.seconds, scratch)


def _wrk_as_written(host: str, requests: list[Request], pace: Pace, _: Path) -> Seen:
    return generators.wrk_as_written(host, requests[0].path, pace.written_seconds)


def _ab_as_written(host: str, requests: list[Request], _pace: Pace, _: Path) -> Seen:
    return generators.ab_as_written(host, requests[0].path)


# Requests


def _always(*requests: Request) -> Callable[[str], Requests]:
    return lambda _host: nullcontext(list(requests))


@contextmanager
def _calls_in_sessions(host: str) -> Iterator[list[Request]]:
    """One session per connection, as that many clients would have."""
    path = "/mcp/sessions"
    sessions = [mcp.open_session(host, path) for _ in range(CONNECTIONS)]
    try:
        yield [
            mcp.legacy(path, session, "tools/call", name="echo", arguments={"message": MESSAGE})
            for session in sessions
        ]
    finally:
        for session in sessions:
            mcp.end_session(host, path, session)


SCENARIOS = [
    Scenario(
        "tools-call",
        f"a call of 1 KB to one server, {CONNECTIONS} connections",
        [
            Variant(
                "modern",
                "2026-07-28 on both sides",
                _always(mcp.modern("/mcp/demo", "tools/call", "echo", arguments={"message": MESSAGE})),
                _echoes,
                _wrk,
                Figure(cpu_at_most=1.25),
            ),
            Variant(
                "session",
                f"2025-11-25 on both sides, {CONNECTIONS} sessions",
                _calls_in_sessions,
                _echoes,
                _wrk,
                Figure(cpu_at_most=1.25),
            ),
        ],
    ),
    Scenario(
        "tools-list",
        f"{TOOLS} tools (51 KB) from the cache, {CONNECTIONS} connections; the bare proxy fetches them",
        [
            Variant(
                "modern",
                "POST, 2026-07-28",
                _always(mcp.modern("/mcp/demo", "tools/list")),
                _lists_tools,
                _wrk,
                Figure(cpu_at_most=0.7, throughput_at_least=1.8),
            ),
            Variant(
                "rest",
                "GET /mcp/demo/tools/list",
                _always(Request("GET", "/mcp/demo/tools/list")),
                _is_tools_array,
                _wrk,
                Figure(cpu_at_most=0.7, throughput_at_least=1.8),
            ),
        ],
    ),
    Scenario(
        "predecessor",
        "the load commands of the predecessor, as written",
        [
            Variant(
                "wrk",
                f"{TOOLS} tools, 400 connections",
                _always(Request("GET", "/mcp/demo/tools/list")),
                _is_tools_array,
                _wrk_as_written,
            ),
            Variant(
                "ab",
                f"{2 * TOOLS} tools of two servers merged, a new connection per request",
                _always(Request("GET", "/mcp/*/tools/list")),
                _is_merged_array,
                _ab_as_written,
            ),
        ],
    ),
]
