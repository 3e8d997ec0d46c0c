"""Makes two runs of one plan comparable: removes what may differ, keeps the rest, shows differences.

What may differ, and why:
- who the server says it is: a gateway may name itself;
- ``ttlMs``: a gateway hands on what is left of it;
- the words of one SDK around a message ("MCP error -32602: ..."), and progress that a client SDK tells
  itself while it answers a server's questions;
- between eras only: the fields that exist in one era, and -32002 against -32602 for an unknown resource.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

OWN_META = ("io.modelcontextprotocol/serverInfo",)
MODERN_FIELDS = ("resultType", "cacheScope")
DIFF_LINES = 40


def differences(
    direct: dict[str, Any],
    through: dict[str, Any],
    plan: list[dict[str, Any]],
    translated: bool = False,
) -> dict[str, str]:
    """Step → how it differs. Steps the client could not do directly are left out.

    `translated`: the gateway's server speaks another era than the client.
    """
    changed_version = version(direct) != version(through)
    across_eras = changed_version or translated
    found: dict[str, str] = {}
    if "failure" in through:
        found["run"] = json.dumps(through["failure"])[:2000]
    if not changed_version:
        _compare(found, "connection", _connection(direct), _connection(through))
    taken = through["steps"] + [None] * (len(direct["steps"]) - len(through["steps"]))
    for number, (step, before, after) in enumerate(zip(plan, direct["steps"], taken, strict=True), 1):
        if "skipped" in before:
            continue
        name = f"step {number}, {' '.join(str(value) for value in step.values())}"
        if after is None:
            found[name] = "the run did not come this far"
        else:
            _compare(found, name, _step(before, across_eras), _step(after, across_eras))
    return found


def version(report: dict[str, Any]) -> str | None:
    return (report.get("connection") or {}).get("version")


def _compare(found: dict[str, str], name: str, before: Any, after: Any) -> None:
    if before == after:
        return
    left, right = (
        json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).splitlines() for value in (before, after)
    )
    lines = list(difflib.unified_diff(left, right, "directly", "through the gateway", lineterm="", n=2))
    rest = [f"... {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else []
    found[name] = "\n".join(lines[:DIFF_LINES] + rest)


def _connection(report: dict[str, Any]) -> dict[str, Any]:
    connection = report.get("connection") or {}
    return {name: connection.get(name) for name in ("version", "capabilities", "instructions")}


def _step(step: dict[str, Any], across_eras: bool) -> dict[str, Any]:
    normal: dict[str, Any] = {"events": _events(step["events"])}
    if "error" in step:
        normal["error"] = _error(step["error"], across_eras)
    elif "skipped" in step:
        normal["skipped"] = step["skipped"]
    else:
        normal["result"] = _result(step["result"], across_eras)
    return normal


def _events(events: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """By kind: between kinds the order of arrival means nothing."""
    kinds: dict[str, list[Any]] = {}
    for event in events:
        if not str(event.get("message", "")).startswith("Fulfilling input required"):
            kinds.setdefault(event["event"], []).append({key: value for key, value in event.items() if key != "event"})
    return kinds


def _error(error: dict[str, Any], across_eras: bool) -> dict[str, Any]:
    normal = {**error, "message": re.sub(r"^(MCP error -?\d+: )+", "", error["message"])}
    if across_eras and normal["code"] == -32002:
        normal["code"] = -32602
    return normal


def _result(result: Any, across_eras: bool) -> Any:
    if not isinstance(result, dict):
        return result
    ignored = {"ttlMs", "_meta", *(MODERN_FIELDS if across_eras else ())}
    normal = {key: value for key, value in result.items() if key not in ignored}
    if meta := {key: value for key, value in result.get("_meta", {}).items() if key not in OWN_META}:
        normal["_meta"] = meta
    if normal.get("isError") is False:
        del normal["isError"]
    return normal
