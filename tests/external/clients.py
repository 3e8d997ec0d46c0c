#!/usr/bin/env python3
"""Real clients of both eras reach real servers of both eras through the gateway.

Every client lists the tools of every server and calls one, on the server's own route and on the merged
one; and where a tool asks something in the middle of a call (elicitation, sampling), each client is
asked and its answer reaches the tool, in all four combinations of eras. The expected results are
written down here: this is not a comparison with direct runs (differential.py).

With --gateway none the clients talk to the servers themselves, as far as they can.

    clients.py --gateway BIN [--only PATTERN ...]
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from harness import clients, servers
from harness.clients import LEGACY, MODERN, Client
from harness.gateway import NONE, Routes, routes
from harness.script import Results, run
from harness.workspace import Workspace

LIMIT_S = 900


@dataclass(frozen=True)
class Server:
    """A server and one call that shows it works."""

    name: str
    start: Callable[[Workspace], str]
    least_tools: int
    tool: str
    arguments: dict[str, Any]
    text: str
    is_dual: bool = False
    is_sse: bool = False


SUM = {"a": 2, "b": 3}
SERVERS = [
    Server("everything", servers.everything_http, 10, "get-sum", SUM, "The sum of 2 and 3 is 5."),
    Server("everything-sse", servers.everything_sse, 10, "get-sum", SUM, "The sum of 2 and 3 is 5.", is_sse=True),
    Server("py1", servers.py1_http, 4, "add", SUM, "5"),
    Server("py1-sse", servers.py1_sse, 4, "add", SUM, "5", is_sse=True),
    Server("py2", servers.py2_http, 4, "add", SUM, "5", is_dual=True),
]

HTTP_CLIENTS = [
    clients.TS1,
    clients.TS2,
    clients.TS2_AUTO,
    clients.TS2_MODERN,
    clients.PY1,
    clients.PY2,
    clients.PY2_MODERN,
]
SSE_CLIENTS = [clients.TS1_SSE, clients.PY1_SSE]


@dataclass(frozen=True)
class Question:
    """A tool that asks in the middle of its call, and how that has to look from the client."""

    tool: str
    arguments: dict[str, Any]
    event: str
    text: str


WHO = {"message": "Who are you?"}
FIXTURE_QUESTIONS = [
    Question(
        "test_elicitation",
        WHO,
        "elicitation",
        'User response: action=accept, content={"username":"Ada","email":"Ada"}',
    ),
    Question("test_sampling", {"prompt": "hello"}, "sampling", "LLM response: You said: hello"),
    Question("test_input_required_result_list_roots", {}, "roots", "Roots: file:///srv/space"),
    Question("test_input_required_result_multi_round", {}, "elicitation", "Ada likes Ada"),
]
PYTHON_QUESTIONS = [
    Question("greet", {}, "elicitation", "Hello, Ada!"),
    Question("ask_model", {"question": "hello"}, "sampling", "The model says: You said: hello"),
]
ASKING: list[tuple[str, Callable[[Workspace], str], bool, bool, list[Question]]] = [
    # name, how to start it, serves legacy, serves modern, what it asks
    (
        "fixture-legacy",
        lambda workspace: servers.fixture(workspace, "legacy", "legacy"),
        True,
        False,
        FIXTURE_QUESTIONS,
    ),
    (
        "fixture-modern",
        lambda workspace: servers.fixture(workspace, "modern", "modern"),
        False,
        True,
        FIXTURE_QUESTIONS,
    ),
    ("py1", servers.py1_http, True, False, PYTHON_QUESTIONS),
    ("py2", servers.py2_http, True, True, PYTHON_QUESTIONS),
]


# ---- judging ----


def call_problem(outcome: dict[str, Any], text: str) -> str | None:
    result = outcome.get("result")
    if result is None or result.get("isError") or result["content"][0].get("text") != text:
        return f"expected the text {text!r}, got {json.dumps(outcome)[:600]}"
    return None


def tools_problem(outcome: dict[str, Any], expected: str, least: int) -> str | None:
    names = [tool["name"] for tool in (outcome.get("result") or {}).get("tools", [])]
    if expected not in names or len(names) < least:
        return f"expected {expected} among at least {least} tools, got {names or json.dumps(outcome)[:600]}"
    return None


def version_problem(report: dict[str, Any], expected: str | None) -> str | None:
    version = (report.get("connection") or {}).get("version")
    if expected and version != expected:
        return f"negotiated {version}, expected {expected}"
    return None


def first(*problems: str | None) -> str | None:
    return next((problem for problem in problems if problem), None)


# ---- the matrix ----


class Matrix:
    def __init__(self, options: argparse.Namespace, results: Results) -> None:
        self._patterns: list[str] = options.only
        self._results = results
        self.is_direct = options.gateway == NONE

    def wants(self, name: str) -> bool:
        return not self._patterns or any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in self._patterns)

    def check(self, name: str, judge: Callable[..., str | None], *what: Any) -> None:
        if self.wants(name):
            self._results.check(name, judge(*what))

    def expected_version(self, client: Client, serves_modern: bool) -> str | None:
        if client.mode == "sse":
            # What an SDK of today negotiates over the old transport is its own affair.
            return None
        # The gateway speaks both eras, whatever the server behind it does.
        return MODERN if client.is_modern_capable and (serves_modern or not self.is_direct) else LEGACY

    def one_server(self, client: Client, server: Server, url: str) -> str | None:
        plan: list[dict[str, Any]] = [
            {"op": "list_tools"},
            {"op": "call", "tool": server.tool, "arguments": server.arguments},
        ]
        report = client.run(url, plan)
        if "failure" in report:
            return json.dumps(report["failure"])[:2000]
        listed, called = report["steps"]
        return first(
            version_problem(report, self.expected_version(client, server.is_dual)),
            tools_problem(listed, server.tool, server.least_tools),
            call_problem(called, server.text),
        )

    def merged(self, client: Client, url: str) -> str | None:
        plan: list[dict[str, Any]] = [{"op": "list_tools"}]
        plan += [{"op": "call", "tool": f"{one.name}__{one.tool}", "arguments": one.arguments} for one in SERVERS]
        report = client.run(url, plan)
        if "failure" in report:
            return json.dumps(report["failure"])[:2000]
        listed, *called = report["steps"]
        least = sum(server.least_tools for server in SERVERS)
        return first(
            version_problem(report, self.expected_version(client, serves_modern=True)),
            *(tools_problem(listed, f"{server.name}__{server.tool}", least) for server in SERVERS),
            *(call_problem(outcome, server.text) for outcome, server in zip(called, SERVERS, strict=True)),
        )

    def asking(self, client: Client, url: str, serves_modern: bool, questions: list[Question]) -> str | None:
        plan = [{"op": "call", "tool": question.tool, "arguments": question.arguments} for question in questions]
        report = client.run(url, plan)
        if "failure" in report:
            return json.dumps(report["failure"])[:2000]
        problems = [version_problem(report, self.expected_version(client, serves_modern))]
        for outcome, question in zip(report["steps"], questions, strict=True):
            problems.append(call_problem(outcome, question.text))
            if question.event not in [event["event"] for event in outcome["events"]]:
                problems.append(f"{question.tool}: the client was not asked for {question.event}")
        return first(*problems)


def inspector_problem(inspector: clients.Inspector, url: str, server: Server, prefix: str = "") -> str | None:
    listed = inspector.list_tools(url)
    called = inspector.call(url, prefix + server.tool, server.arguments)
    return first(
        tools_problem(listed, prefix + server.tool, server.least_tools),
        call_problem(called, server.text),
    )


def lists_and_calls(matrix: Matrix, way: Routes) -> None:
    for server in SERVERS:
        url = way.servers[server.name]
        for client in HTTP_CLIENTS:
            if matrix.is_direct and (server.is_sse or (client.is_modern_only and not server.is_dual)):
                continue
            matrix.check(f"{client.name} > {server.name}", matrix.one_server, client, server, url)
        for inspector in clients.INSPECTORS:
            if matrix.is_direct and (server.is_sse or (inspector.era == "modern" and not server.is_dual)):
                continue
            matrix.check(f"{inspector.name} > {server.name}", inspector_problem, inspector, url, server)
        for client in SSE_CLIENTS:
            if matrix.is_direct and not server.is_sse:
                continue
            sse_url = way.sse[server.name] if way.sse else url
            matrix.check(f"{client.name} > {server.name}", matrix.one_server, client, server, sse_url)


def merged_route(matrix: Matrix, url: str) -> None:
    for client in HTTP_CLIENTS:
        matrix.check(f"{client.name} > merged", matrix.merged, client, url)
    for inspector in clients.INSPECTORS:
        server = SERVERS[0]
        matrix.check(f"{inspector.name} > merged", inspector_problem, inspector, url, server, f"{server.name}__")


def body(options: argparse.Namespace, workspace: Workspace, results: Results) -> None:
    matrix = Matrix(options, results)
    way = routes(workspace, options.gateway, {server.name: server.start(workspace) for server in SERVERS})
    lists_and_calls(matrix, way)
    if way.merged:
        merged_route(matrix, way.merged)
    workspace.stop_all()

    urls = {name: start(workspace) for name, start, *_ in ASKING}
    way = routes(workspace, options.gateway, urls)
    for name, _, serves_legacy, serves_modern, questions in ASKING:
        for client in HTTP_CLIENTS:
            can = (
                serves_modern
                if client.is_modern_only
                else serves_legacy or (serves_modern and client.is_modern_capable)
            )
            if matrix.is_direct and not can:
                continue
            url = way.servers[name]
            matrix.check(
                f"{client.name} > {name}, asked in mid-call",
                matrix.asking,
                client,
                url,
                serves_modern,
                questions,
            )
    if way.merged:
        everything = [
            replace(question, tool=f"{name}__{question.tool}")
            for name, _, _, _, questions in ASKING
            for question in questions
        ]
        for client in HTTP_CLIENTS:
            url = way.merged
            matrix.check(f"{client.name} > merged, asked in mid-call", matrix.asking, client, url, True, everything)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="parts of names as printed")


if __name__ == "__main__":
    run("clients", __doc__, body, LIMIT_S, arguments)
