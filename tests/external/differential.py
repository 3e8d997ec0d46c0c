#!/usr/bin/env python3
"""What a client experiences through the gateway is what it experiences directly.

Every client runs one long plan against the fixture, directly and through the gateway: lists, calls of
every kind, progress, logging, sampling, elicitation, input required, errors, prompts, resources,
completion, subscriptions and the changes they announce, a dropped and resumed stream, cancellation,
reconnecting. The two transcripts, normalised (harness/transcripts.py), are equal. The fixture serves
both eras, then only the legacy one, then only the modern one; a client that could not talk to that
fixture directly is held to what it experiences with the one that serves both.

With --gateway none each client runs the plan twice directly, which shows that the plan is repeatable.

    differential.py --gateway BIN [--only PATTERN ...] [--show]

Not for what the protocol demands on the wire (conformance.py).
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from typing import Any

from harness import clients, servers, transcripts
from harness.clients import Client
from harness.gateway import NONE, routes
from harness.script import Results, run
from harness.workspace import Workspace

LIMIT_S = 900

CLIENTS = [clients.TS1, clients.TS2, clients.TS2_AUTO, clients.PY1, clients.PY2_LEGACY, clients.PY2, clients.PY2_MODERN]
FIXTURES = ["both", "legacy", "modern"]
WATCHED = "test://watched-resource"


def call(tool: str, wait_for: str | None = None, **arguments: Any) -> dict[str, Any]:
    step: dict[str, Any] = {"op": "call", "tool": tool, "arguments": arguments}
    return {**step, "wait_for": wait_for} if wait_for else step


def refused(step: dict[str, Any]) -> dict[str, Any]:
    """A step that is answered with a JSON-RPC error; every other has to succeed directly."""
    return {**step, "refused": True}


PLAN: list[dict[str, Any]] = [
    {"op": "ping"},
    {"op": "list_tools"},
    {"op": "list_prompts"},
    {"op": "list_resources"},
    {"op": "list_templates"},
    # Calls that answer by themselves.
    call("test_simple_text"),
    call("test_image_content"),
    call("test_audio_content"),
    call("test_embedded_resource"),
    call("test_multiple_content_types"),
    call("test_error_handling"),
    call("test_tool_with_progress"),
    call("json_schema_2020_12_tool", name="Ada", contactMethod="phone", phone="1"),
    call("json_schema_2020_12_tool", unexpected=True),
    call("test_x_mcp_header", region="eu-west", priority=7, note="in the body"),
    call("test_x_mcp_header", region=" Zürich, padded "),
    refused(call("no_such_tool")),
    # Logging, at two levels.
    {"op": "log_level", "level": "info"},
    call("test_tool_with_logging"),
    call("test_logging_tool"),
    {"op": "log_level", "level": "error"},
    call("test_logging_tool"),
    # Calls that ask the client.
    call("test_sampling", prompt="hello"),
    call("test_missing_capability"),
    call("test_elicitation", message="Who are you?"),
    call("test_elicitation_sep1034_defaults"),
    call("test_elicitation_sep1330_enums"),
    call("test_streaming_elicitation"),
    call("test_input_required_result_elicitation"),
    call("test_input_required_result_sampling"),
    call("test_input_required_result_list_roots"),
    call("test_input_required_result_request_state"),
    call("test_input_required_result_multiple_inputs"),
    call("test_input_required_result_multi_round"),
    call("test_input_required_result_capabilities"),
    # Prompts.
    {"op": "get_prompt", "prompt": "test_simple_prompt"},
    {"op": "get_prompt", "prompt": "test_prompt_with_arguments", "arguments": {"arg1": "hello", "arg2": "wörld"}},
    refused({"op": "get_prompt", "prompt": "test_prompt_with_arguments", "arguments": {"arg1": "alone"}}),
    {"op": "get_prompt", "prompt": "test_prompt_with_embedded_resource", "arguments": {"resourceUri": "test://x"}},
    {"op": "get_prompt", "prompt": "test_prompt_with_image"},
    {"op": "get_prompt", "prompt": "test_input_required_result_prompt"},
    refused({"op": "get_prompt", "prompt": "no_such_prompt"}),
    # Resources and completion.
    {"op": "read", "uri": "test://static-text"},
    {"op": "read", "uri": "test://static-binary"},
    {"op": "read", "uri": "test://template/12%2F3/data"},
    refused({"op": "read", "uri": "test://no-such-resource"}),
    {
        "op": "complete",
        "ref": {"type": "ref/prompt", "name": "test_prompt_with_arguments"},
        "argument": {"name": "arg1", "value": "par"},
    },
    {
        "op": "complete",
        "ref": {"type": "ref/resource", "uri": "test://template/{id}/data"},
        "argument": {"name": "id", "value": "1"},
    },
    # Changes: each is announced, and what is listed or read afterwards is new.
    {"op": "read", "uri": WATCHED},
    {"op": "watch", "uri": WATCHED},
    call("test_trigger_resource_update", wait_for="resource updated"),
    {"op": "read", "uri": WATCHED},
    call("test_trigger_tool_change", wait_for="tools changed"),
    {"op": "list_tools"},
    call("test_optional_tool"),
    call("test_trigger_prompt_change", wait_for="prompts changed"),
    {"op": "list_prompts"},
    {"op": "unwatch", "uri": WATCHED},
    # Trouble.
    call("test_reconnection"),
    {"op": "cancel", "tool": "test_slow_tool", "counter": "test_cancelled_calls"},
    {"op": "reconnect"},
    {"op": "list_tools"},
    call("test_simple_text"),
    {"op": "read", "uri": WATCHED},
]


def can_talk(client: Client, era: str) -> bool:
    return {"both": True, "legacy": not client.is_modern_only, "modern": client.is_modern_capable}[era]


def is_translated(report: dict[str, Any], era: str) -> bool:
    """Whether the client spoke another era through the gateway than the one server era there is."""
    is_modern = (transcripts.version(report) or "") >= "2026"
    return era != "both" and is_modern != (era == "modern")


def experience(workspace: Workspace, client: Client, binary: str, era: str) -> dict[str, Any]:
    """The client's transcript with a fresh fixture, so that every run meets the same world."""
    fixture = servers.fixture(workspace, era)
    way = routes(workspace, binary, {"fixture": fixture})
    report = client.run(way.servers["fixture"], PLAN)
    workspace.stop_all()
    return report


def direct_problem(report: dict[str, Any]) -> str | None:
    """Why this transcript is nothing to compare with, if so."""
    if "failure" in report:
        return f"directly: {json.dumps(report['failure'])[:2000]}"
    for step, outcome in zip(PLAN, report["steps"], strict=True):
        if ("error" in outcome) != ("refused" in step):
            return f"directly: {json.dumps(step)} gave {json.dumps(outcome)[:1000]}"
    return None


def body(options: argparse.Namespace, workspace: Workspace, results: Results) -> None:
    direct: dict[tuple[str, str], dict[str, Any]] = {}
    for era in FIXTURES:
        for client in CLIENTS:
            name = f"{client.name} > fixture ({era})"
            if options.only and not any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in options.only):
                continue
            if options.gateway == NONE and not can_talk(client, era):
                continue
            reference = era if can_talk(client, era) else "both"
            if (client.name, reference) not in direct:
                direct[client.name, reference] = experience(workspace, client, NONE, reference)
            before = direct[client.name, reference]
            if problem := direct_problem(before):
                results.failed(name, problem)
                continue
            through = experience(workspace, client, options.gateway, era)
            found = transcripts.differences(
                before,
                through,
                PLAN,
                translated=reference != era or is_translated(through, era),
            )
            steps = sum("skipped" not in step for step in before["steps"])
            results.check(f"{name}: {steps} steps", "\n".join(f"{step}\n{how}" for step, how in found.items()))
            if options.show:
                print(json.dumps(through, indent=1))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="parts of names as printed")
    parser.add_argument("--show", action="store_true", help="print the transcripts through the gateway")


if __name__ == "__main__":
    run("differential", __doc__, body, LIMIT_S, arguments)
