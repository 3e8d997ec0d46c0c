#!/usr/bin/env python3
"""Runs the judged client behind a gateway of its own: the command that the conformance suite is given.

    MCP_FLEET_BINARY=BIN behind_gateway.py URL

Starts the gateway in front of URL (the suite's mock server), runs clients/judged.mjs against the
gateway, stops the gateway. The exit code is the client's. With BIN `none` the client talks to URL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.gateway import routes
from harness.paths import HERE, NODE
from harness.workspace import Workspace

CLIENT_S = 25


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    url = sys.argv[-1]
    with Workspace() as workspace:
        way = routes(workspace, os.environ["MCP_FLEET_BINARY"], {"judge": url})
        client: list[str | Path] = [NODE, HERE / "clients" / "judged.mjs", way.servers["judge"]]
        try:
            code = subprocess.run(client, stdin=subprocess.DEVNULL, timeout=CLIENT_S).returncode
        except subprocess.TimeoutExpired:
            print(f"the client did not end within {CLIENT_S} s", file=sys.stderr)
            code = 1
        if code != 0:
            print(workspace.gateway_tail(), file=sys.stderr)
        return code


if __name__ == "__main__":
    sys.exit(main())
