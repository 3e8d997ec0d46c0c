"""What a client at a moderate rate sees: open loop, latencies corrected."""

from .. import answers, loads, mcp
from ..answers import MESSAGE
from ..mcp import Answer, Request
from ..scenario import PAIR, Comparison, Figure, Variant, always
from ..subjects import Subject


def _call(subject: Subject) -> Request:
    return mcp.modern(subject.path("demo"), "tools/call", subject.echo, arguments={"message": MESSAGE})


def _list(subject: Subject) -> Request:
    return mcp.modern(subject.path("demo"), "tools/list")


def _echoes(answer: Answer, _: str) -> None:
    answers.says(answer, MESSAGE)


def _lists(answer: Answer, upstream: str) -> None:
    answers.has_tools(answer, answers.plain_list(upstream, "demo"))


def _calls_at(rate: int, figure: Figure) -> Variant:
    about = f"{rate:,} calls of 1 KB per second"
    return Variant(f"call, {rate:,}/s", about, always(_call), _echoes, loads.at_rate(rate), figure, needs="oha")


SCENARIO = Comparison(
    "tails",
    "requests at a fixed rate on 64 connections; a latency counts from when the request was due",
    [
        _calls_at(1000, Figure(added_p99_at_most=1)),
        Variant(
            "list, 1,000/s",
            "1,000 lists of 50 tools per second",
            always(_list),
            _lists,
            loads.at_rate(1000),
            Figure(added_p99_at_most=1),
            PAIR,
            needs="oha",
        ),
    ],
    [_calls_at(100, Figure(added_p99_at_most=1)), _calls_at(4000, Figure())],
    servers=("demo",),
)
