"""The load commands of the predecessor, as written."""

from pathlib import Path

from .. import answers
from ..generators import Seen, ab, wrk
from ..mcp import Request
from ..scenario import PAIR, Comparison, Pace, Variant, always
from ..subjects import Subject


def _wrk(subject: Subject, requests: list[Request], pace: Pace, _: Path) -> Seen:
    return wrk.as_written(subject.host, requests[0].path, pace.written_seconds)


def _ab(subject: Subject, requests: list[Request], _pace: Pace, _: Path) -> Seen:
    return ab.as_written(subject.host, requests[0].path)


SCENARIO = Comparison(
    "predecessor",
    "the load commands of the predecessor, as written",
    [
        Variant(
            "wrk",
            "50 tools, 400 connections",
            always(lambda subject: Request("GET", "/mcp/demo/tools/list")),
            lambda answer, upstream: answers.is_array(answer, answers.plain_list(upstream, "demo")),
            _wrk,
            subjects=PAIR,
            most_rounds=1,
        ),
        Variant(
            "ab",
            "100 tools of two servers merged, a new connection per request",
            always(lambda subject: Request("GET", "/mcp/*/tools/list")),
            lambda answer, upstream: answers.is_same_json(answer, answers.plain_list(upstream, "*")),
            _ab,
            subjects=PAIR,
            needs="ab",
        ),
    ],
)
