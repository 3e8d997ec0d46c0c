"""POST /api/batch: what many calls in one request save."""

import json
from pathlib import Path

from .. import answers, mcp
from ..answers import MESSAGE
from ..generators import Seen, wrk
from ..mcp import Answer, Request, WrongAnswer
from ..scenario import PAIR, Comparison, Pace, Variant, always
from ..subjects import Subject

_CALLS = 20
# A node makes 16 calls of a batch at once: as many in flight as on 64 connections.
_CONNECTIONS, _CONNECTIONS_OF_PROXIES = 4, 64


def _request(subject: Subject) -> Request:
    if not subject.is_gateway:
        return mcp.modern(subject.path("demo"), "tools/call", subject.echo, arguments={"message": MESSAGE})
    call = {"server": "demo", "tool": "echo", "arguments": {"message": MESSAGE}}
    headers = {"Content-Type": "application/json"}
    return Request("POST", "/api/batch", headers, (json.dumps({"calls": [call] * _CALLS}),))


def _check(answer: Answer, _: str) -> None:
    answers.is_ok(answer)
    body = json.loads(answer.body)
    if "results" not in body:
        answers.says(answer, MESSAGE)
        return
    said = [result["result"]["content"][0]["text"] for result in body["results"]]
    if said != [MESSAGE] * _CALLS:
        raise WrongAnswer(f"not the echoes: {answer.body[:500]!r}")


def _load(subject: Subject, requests: list[Request], pace: Pace, scratch: Path) -> Seen:
    connections = _CONNECTIONS if subject.is_gateway else _CONNECTIONS_OF_PROXIES
    return wrk.run([subject.host], requests, connections, pace.seconds, scratch)


SCENARIO = Comparison(
    "batch",
    f"{_CALLS} calls of 1 KB in one POST /api/batch; proxies get the calls one by one; figures are per call",
    [
        Variant(
            "modern",
            f"{_CONNECTIONS} connections, proxies {_CONNECTIONS_OF_PROXIES}; latencies are those of a batch",
            always(_request),
            _check,
            _load,
            subjects=PAIR,
            calls_per_request=lambda subject: _CALLS if subject.is_gateway else 1,
        )
    ],
    servers=("demo",),
)
