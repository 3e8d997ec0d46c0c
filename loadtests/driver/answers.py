"""What a right answer is: compared before anything is timed."""

import json
from functools import cache

from .mcp import Answer, Request, WrongAnswer

# An argument of about a kilobyte; it comes back in the answer.
MESSAGE = "All happy payloads are alike; each unhappy one is unhappy in its own way. " * 13
KIB_100 = 100 * 1024


def is_ok(answer: Answer) -> None:
    if answer.status != 200:
        raise WrongAnswer(f"status {answer.status}: {answer.body[:500]!r}")


def says(answer: Answer, text: str) -> None:
    """The result of a call that says this and nothing else."""
    is_ok(answer)
    if answer.message()["result"]["content"] != [{"type": "text", "text": text}]:
        raise WrongAnswer(f"not the echo: {answer.body[:500]!r}")


def streams(answer: Answer) -> None:
    """An event stream with progress before the result."""
    if answer.headers.get_content_type() != "text/event-stream" or b"notifications/progress" not in answer.body:
        raise WrongAnswer(f"no event stream with progress: {answer.body[:500]!r}")


@cache
def plain_list(upstream: str, server: str) -> bytes:
    """The array of a server's tools as the upstream says it itself."""
    answer = Request("GET", f"/mcp/{server}/tools/list").send(upstream)
    is_ok(answer)
    return answer.body


def has_tools(answer: Answer, tools: bytes) -> None:
    """The result of tools/list; byte for byte: payloads are not the gateway's to rewrite."""
    is_ok(answer)
    if b'"tools":' + tools not in answer.body:
        raise WrongAnswer(f"not the tools of the upstream: {answer.body[:500]!r}")


def is_array(answer: Answer, tools: bytes) -> None:
    is_ok(answer)
    if answer.body != tools:
        raise WrongAnswer(f"not the array of tools: {answer.body[:500]!r}")


def is_same_json(answer: Answer, tools: bytes) -> None:
    is_ok(answer)
    if json.loads(answer.body) != json.loads(tools):
        raise WrongAnswer(f"not the merged tools: {answer.body[:500]!r}")
