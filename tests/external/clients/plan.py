"""Runs a job with a Python client and tells what happened: the part that py1.py and py2.py share.

The TypeScript clients do the same in plan.mjs; see there for the job's form. Not for judging: the
drivers compare what is printed here.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

STEP_S = 20.0
EVENT_S = 5.0
STREAM_S = 0.3


# ---- what the client says when a server asks it something ----


def elicitation_answer(schema: dict[str, Any]) -> dict[str, Any]:
    fields = schema.get("properties", {})
    return {"action": "accept", "content": {name: _value(field) for name, field in fields.items()}}


def sampling_answer(messages: list[dict[str, Any]]) -> dict[str, Any]:
    content = messages[-1]["content"]
    said = (content[0] if isinstance(content, list) else content)["text"]
    return {
        "role": "assistant",
        "model": "canned",
        "stopReason": "endTurn",
        "content": {"type": "text", "text": f"You said: {said}"},
    }


def roots_answer() -> dict[str, Any]:
    return {"roots": [{"uri": "file:///srv/space", "name": "space"}]}


def _value(field: dict[str, Any]) -> Any:
    if "default" in field:
        return field["default"]
    if field.get("type") == "array":
        return [_value(field["items"])]
    if "enum" in field:
        return field["enum"][0]
    for titled in ("oneOf", "anyOf"):
        if titled in field:
            return field[titled][0]["const"]
    return {"string": "Ada", "integer": 7, "number": 1.5, "boolean": True}[field["type"]]


# ---- what a server told or asked ----


class Events:
    """In the order of arrival, with a way to wait for the next of a kind."""

    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []
        self._arrival = anyio.Event()

    def add(self, event: str, **details: Any) -> None:
        self._seen.append({"event": event, **details})
        self._arrival.set()
        self._arrival = anyio.Event()

    def take(self) -> list[dict[str, Any]]:
        seen, self._seen = self._seen, []
        return seen

    async def next(self, event: str) -> None:
        try:
            with anyio.fail_after(EVENT_S):
                while not any(seen["event"] == event for seen in self._seen):
                    await self._arrival.wait()
        except TimeoutError:
            raise TimeoutError(f'no event "{event}" within {EVENT_S} s') from None


class StreamWatch:
    """Tells when the GET stream, on which changes arrive, is open.

    It waits a moment, no longer: some servers send nothing on it, not even headers, before the
    first change.
    """

    def __init__(self) -> None:
        self._open = anyio.Event()

    async def on_response(self, response: Any) -> None:
        if response.request.method == "GET":
            self._open.set()

    async def wait(self) -> None:
        with anyio.move_on_after(STREAM_S):
            await self._open.wait()


def plain(model: Any) -> Any:
    """A result as it looks in the protocol."""
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


# ---- the operations ----


def _text(result: dict[str, Any]) -> str:
    return result["content"][0]["text"]


async def _cancel(client: Any, step: dict[str, Any]) -> dict[str, Any] | None:
    """Cancels a call in the middle and waits until the server has noticed."""
    if not client.can_cancel:
        return None
    before = int(_text(await client.call(step["counter"], None)))
    outcome = "gave up"
    with anyio.CancelScope() as scope:

        async def enough(*_: Any) -> None:
            scope.cancel()

        await client.call(step["tool"], None, on_progress=enough)
        outcome = "answered"
    with anyio.move_on_after(EVENT_S):
        while int(_text(await client.call(step["counter"], None))) <= before:
            await anyio.sleep(0.05)
        return {"outcome": outcome, "serverNoticed": True}
    return {"outcome": outcome, "serverNoticed": False}


async def _call(client: Any, step: dict[str, Any], events: Events) -> Any:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        known = {"progress": progress, "total": total, "message": message}
        events.add("progress", **{name: value for name, value in known.items() if value is not None})

    return await client.call(step["tool"], step.get("arguments"), on_progress=on_progress)


OPERATIONS: dict[str, Callable[[Any, dict[str, Any], Events], Any]] = {
    "list_tools": lambda client, step, events: client.list_tools(),
    "list_prompts": lambda client, step, events: client.list_prompts(),
    "list_resources": lambda client, step, events: client.list_resources(),
    "list_templates": lambda client, step, events: client.list_templates(),
    "call": _call,
    "get_prompt": lambda client, step, events: client.get_prompt(step["prompt"], step.get("arguments")),
    "read": lambda client, step, events: client.read(step["uri"]),
    "complete": lambda client, step, events: client.complete(step["ref"], step["argument"]),
    "log_level": lambda client, step, events: client.set_log_level(step["level"]),
    "ping": lambda client, step, events: client.ping(),
    "watch": lambda client, step, events: client.watch(step["uri"]),
    "unwatch": lambda client, step, events: client.unwatch(step["uri"]),
    "cancel": lambda client, step, events: _cancel(client, step),
}


def _described(error: BaseException) -> dict[str, Any]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    details = getattr(error, "error", None)
    if details is None:
        return {"code": None, "message": f"{type(error).__name__}: {error}"}
    known = {"code": details.code, "message": details.message, "data": details.data}
    return {name: value for name, value in known.items() if value is not None}


async def _run(client: Any, step: dict[str, Any], events: Events) -> dict[str, Any]:
    operation = OPERATIONS.get(step["op"])
    if operation is None:
        return {"skipped": "no such operation"}
    try:
        with anyio.fail_after(STEP_S):
            result = await operation(client, step, events)
        if "wait_for" in step:
            await events.next(step["wait_for"])
    except Exception as error:  # whatever it is, it is what happened in this step
        return {"error": _described(error)}
    return {"skipped": "this client cannot"} if result is None else {"result": result}


Connect = Callable[[dict[str, Any], Events], AbstractAsyncContextManager[Any]]


async def _run_all(job: dict[str, Any], connect: Connect, report: dict[str, Any]) -> None:
    events = Events()
    plan = list(job["plan"])
    while plan:
        # A client is a context here, so a plan is run in pieces between its reconnects.
        async with connect(job, events) as client:
            report.setdefault("connection", client.connection)
            while plan:
                step = plan.pop(0)
                if step["op"] == "reconnect":
                    report["steps"].append({"op": "reconnect", "result": {}, "events": events.take()})
                    break
                outcome = await _run(client, step, events)
                report["steps"].append({"op": step["op"], **outcome, "events": events.take()})


def main(connect: Connect) -> None:
    """Reads the job, connects with ``connect(job, events)``, runs the plan, prints what happened."""
    job = json.load(sys.stdin)
    report: dict[str, Any] = {"steps": []}
    try:
        anyio.run(_run_all, job, connect, report)
    except BaseException as error:
        traceback.print_exc()
        report["failure"] = _described(error)
    print(json.dumps(report), flush=True)
