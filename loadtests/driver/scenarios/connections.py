"""Connections that come and go: one for each call."""

from dataclasses import replace

from .. import answers, loads, mcp
from ..answers import MESSAGE
from ..mcp import Answer, Request
from ..scenario import PAIR, Comparison, Variant, always
from ..subjects import Subject


def _request(subject: Subject) -> Request:
    call = mcp.modern(subject.path("demo"), "tools/call", subject.echo, arguments={"message": MESSAGE})
    return replace(call, headers={**call.headers, "Connection": "close"})


def _check(answer: Answer, _: str) -> None:
    answers.says(answer, MESSAGE)


SCENARIO = Comparison(
    "connections",
    "a call of 1 KB on a new connection each time",
    [Variant("modern", "64 at once, `Connection: close`", always(_request), _check, loads.closed(), subjects=PAIR)],
    servers=("demo",),
)
