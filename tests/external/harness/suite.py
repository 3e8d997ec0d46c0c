"""What the official conformance suite writes down, and how two of its runs compare, check by check.

Not for running the suite: conformance.py judges servers, conformance_client.py judges clients.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from .paths import CACHE

Check = dict[str, str]
Checks = dict[str, list[Check]]
"""Scenario → its checks, each with id, name, status and message."""

BAD = ("FAILURE", "WARNING")


def read(output: Path) -> Checks:
    """Everything found below the suite's output directory."""
    found: Checks = {}
    for path in sorted(output.glob("**/checks.json")):
        scenario = re.sub(r"^(?:server-)?(.*)-\d{4}-\d\d-\d\dT.*$", r"\1", path.parent.name)
        found[scenario] = [_brief(check) for check in json.loads(path.read_text())]
    return found


def _brief(check: Check) -> Check:
    return {
        "id": check["id"],
        "name": check["name"],
        "status": check["status"],
        "message": check.get("errorMessage") or "",
    }


def successes(checks: Checks) -> int:
    return sum(check["status"] == "SUCCESS" for scenario in checks.values() for check in scenario)


def bad(checks: list[Check]) -> str:
    """What is wrong by itself, a line each."""
    return "\n".join(f"{check['id']} ({check['name']}): {_said(check)}" for check in checks if check["status"] in BAD)


def lost(direct: list[Check], through: list[Check]) -> str:
    """What became worse, a line each. A check may occur several times under one name."""

    def count(checks: list[Check], *statuses: str) -> Counter[tuple[str, str]]:
        return Counter((check["id"], check["name"]) for check in checks if check["status"] in statuses)

    def messages(key: tuple[str, str]) -> str:
        return (
            "; ".join(_said(check) for check in through if (check["id"], check["name"]) == key) or "not checked at all"
        )

    missing = count(direct, "SUCCESS") - count(through, "SUCCESS")
    broken = count(through, *BAD) - count(direct, *BAD)
    return "\n".join(f"{key[0]} ({key[1]}): {messages(key)}" for key in sorted(set(missing) | set(broken)))


def _said(check: Check) -> str:
    return f"{check['status']} {check['message']}".strip()


def cached(
    name: str,
    depends_on: Iterable[Path],
    terms: object,
    produce: Callable[[], Checks],
    is_good: Callable[[Checks], bool],
) -> Checks:
    """The result of `produce`, from the cache directory when nothing it depends on has changed."""
    digest = hashlib.sha256(repr(terms).encode())
    for path in depends_on:
        digest.update(path.read_bytes())
    kept = CACHE / "conformance" / f"{name}-{digest.hexdigest()[:16]}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    checks = produce()
    if is_good(checks):
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(checks))
    return checks
