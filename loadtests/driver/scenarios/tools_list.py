"""tools/list from the gateway's cache; a proxy fetches it from the upstream's memory."""

from collections.abc import Callable
from functools import cache

from .. import answers, loads, mcp
from ..mcp import Answer, Request
from ..scenario import PAIR, Comparison, Figure, Requests, Variant, always
from ..subjects import Subject

_FIGURE = Figure(cpu_at_most=0.7, throughput_at_least=1.8)


def _post(server: str) -> Callable[[Subject], Requests]:
    return always(lambda subject: mcp.modern(subject.path(server), "tools/list"))


def _get(server: str) -> Callable[[Subject], Requests]:
    return always(lambda subject: Request("GET", f"{subject.path(server)}/tools/list"))


def _lists(answer: Answer, upstream: str) -> None:
    answers.has_tools(answer, answers.plain_list(upstream, "demo"))


def _is_array(server: str) -> Callable[[Answer, str], None]:
    return lambda answer, upstream: answers.is_array(answer, answers.plain_list(upstream, server))


def _lists_first_page(answer: Answer, upstream: str) -> None:
    answers.has_tools(answer, _first_page(upstream))


@cache
def _first_page(upstream: str) -> bytes:
    answer = mcp.modern("/mcp/many", "tools/list").send(upstream)
    return answer.body.partition(b'"tools":')[2].partition(b',"ttlMs"')[0]


_WIDTHS = [
    Variant(
        f"modern, {connections:,}",
        f"50 tools; POST, {connections:,} connection{'s' if connections > 1 else ''}",
        _post("demo"),
        _lists,
        loads.closed(connections),
        subjects=PAIR,
    )
    for connections in (1, 256, 1000)
]

SCENARIO = Comparison(
    "tools-list",
    "the list of one server, 64 connections",
    [
        Variant("modern", "50 tools (51 KB); POST, 2026-07-28", _post("demo"), _lists, loads.closed(), _FIGURE),
        Variant(
            "rest",
            "50 tools (51 KB); GET /mcp/demo/tools/list",
            _get("demo"),
            _is_array("demo"),
            loads.closed(),
            _FIGURE,
            PAIR,
        ),
        Variant(
            "modern, 2,000",
            "2,000 tools, the first page of 1,000 (1 MB)",
            _post("many"),
            _lists_first_page,
            loads.closed(),
            subjects=PAIR,
        ),
        Variant(
            "rest, 2,000",
            "2,000 tools (2 MB); GET",
            _get("many"),
            _is_array("many"),
            loads.closed(),
            subjects=PAIR,
        ),
    ],
    [
        Variant(
            "rest, HTTP/2",
            "the same, 64 at once over HTTP/2",
            _get("demo"),
            _is_array("demo"),
            loads.closed_http2(),
            subjects=PAIR,
            needs="h2load",
        ),
        *_WIDTHS,
    ],
    servers=("demo", "many"),
)
