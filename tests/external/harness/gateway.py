"""The gateway under test, and the routes to the servers behind it.

With ``--gateway none`` the routes lead straight to the servers: that is how a script is tried out on
its own, and how the direct half of a comparison is made.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .programs import free_port
from .workspace import Workspace

NONE = "none"


@dataclass
class Routes:
    """Where clients find each server, all of them merged, and each over HTTP+SSE (2024-11-05)."""

    servers: dict[str, str]
    merged: str | None = None
    sse: dict[str, str] | None = None


def routes(workspace: Workspace, binary: str, servers: Mapping[str, str], name: str = "gateway") -> Routes:
    """Routes through a new gateway in front of `servers` (name → URL), or straight to them."""
    if binary == NONE:
        return Routes(dict(servers))
    port = free_port()
    known = [argument for server, url in servers.items() for argument in ("--server", f"{server}={url}")]
    gateway = workspace.start(
        name,
        [Path(binary).resolve(), "serve", "--listen", f"127.0.0.1:{port}", *known],
        env=_environment(workspace),
        is_gateway=True,
    )
    gateway.wait_until(lambda: _is_ready(port), f"GET /readyz on port {port} answers 200")
    base = f"http://localhost:{port}"
    return Routes(
        servers={server: f"{base}/mcp/{server}" for server in servers},
        merged=f"{base}/mcp",
        sse={server: f"{base}/sse/{server}" for server in servers},
    )


def _environment(workspace: Workspace) -> dict[str, str]:
    """Without what the machine's owner has set for a gateway of their own."""
    foreign = ("MCP_FLEET", "REDIS_URL", "HEALTH_CHECK_INTERVAL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "HOME": str(workspace.directory), "RUST_BACKTRACE": "1"}


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return answer.status == 200
    except (OSError, urllib.error.HTTPError):
        return False
