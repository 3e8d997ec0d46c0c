#!/usr/bin/env python3
"""An independent checker's opinion on the gateway as a 2026-07-28 server: all of its checks pass.

The checker (PyPI jbt-mcpcheck) is pointed at the gateway in front of a dual-era server, in front of a
legacy one, which the gateway has to bring up to date, and at all of them merged. With --gateway none
it is pointed at the dual-era server itself.

    mcpcheck.py --gateway BIN

Not a comparison with the direct run: each check stands for itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from harness import servers
from harness.gateway import NONE, routes
from harness.paths import PYTHON2
from harness.script import Results, run
from harness.workspace import Workspace

LIMIT_S = 240
CHECK_S = 60
LEAST_CHECKS = 8


def opinion(url: str) -> dict[str, str | None]:
    """The checker's checks: name → what is wrong, if anything."""
    # -I: not this file, which has the module's name.
    command: list[str | Path] = [PYTHON2, "-I", "-m", "mcpcheck", url, "--probe", "all", "--legacy-probes", "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CHECK_S)
    try:
        checks = json.loads(done.stdout)["checks"]
    except (ValueError, KeyError):
        return {"run": f"exit {done.returncode}\n{done.stdout}{done.stderr}"}
    return {
        check["name"]: None
        if check["status"] == "pass"
        else f"{check['status']}: {check['summary']}\n{check['details']}"
        for check in checks
    }


def body(options: argparse.Namespace, workspace: Workspace, results: Results) -> None:
    behind = {"py2": servers.py2_http(workspace)}
    if options.gateway != NONE:
        behind["py1"] = servers.py1_http(workspace)
    way = routes(workspace, options.gateway, behind)
    targets = dict(way.servers)
    if way.merged:
        targets["merged"] = way.merged
    for name, url in targets.items():
        found = opinion(url)
        for check, problem in found.items():
            results.check(f"{name} {check}", problem)
        if len(found) < LEAST_CHECKS:
            results.failed(f"{name} count", f"{len(found)} checks, expected {LEAST_CHECKS}")


if __name__ == "__main__":
    run("mcpcheck", __doc__, body, LIMIT_S)
