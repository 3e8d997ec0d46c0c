"""The third-party servers that stand behind the gateway, each started and ready when its URL is returned."""

from __future__ import annotations

import json
import os

from .paths import EVERYTHING, HERE, NODE, PYTHON1, PYTHON2
from .programs import Program, free_port, is_listening
from .workspace import Workspace


def fixture(workspace: Workspace, era: str = "both", name: str = "fixture") -> str:
    """The conformance fixture. `era`: both, legacy or modern."""
    server = workspace.start(name, [NODE, HERE / "fixture" / "server.mjs", "--era", era])
    server.wait_until(lambda: "\n" in server.output(), "it has told its URL")
    return json.loads(server.output().splitlines()[0])["url"]


def everything_http(workspace: Workspace) -> str:
    """npm server-everything over Streamable HTTP: legacy only."""
    return _on_port(workspace, "everything-http", [NODE, EVERYTHING, "streamableHttp"], "mcp")


def everything_sse(workspace: Workspace) -> str:
    """npm server-everything over HTTP+SSE, the transport of 2024-11-05."""
    return _on_port(workspace, "everything-sse", [NODE, EVERYTHING, "sse"], "sse")


def py1_http(workspace: Workspace) -> str:
    """Python SDK 1.x over Streamable HTTP: legacy only."""
    script = HERE / "servers" / "py1_fastmcp.py"
    return _on_port(workspace, "py1-http", [PYTHON1, script], "mcp", after_port=("http",))


def py1_sse(workspace: Workspace) -> str:
    """Python SDK 1.x over HTTP+SSE; unlike everything_sse it ends lines with CRLF."""
    script = HERE / "servers" / "py1_fastmcp.py"
    return _on_port(workspace, "py1-sse", [PYTHON1, script], "sse", after_port=("sse",))


def py2_http(workspace: Workspace) -> str:
    """Python SDK 2.x over Streamable HTTP: both eras."""
    script = HERE / "servers" / "py2_mcpserver.py"
    return _on_port(workspace, "py2-http", [PYTHON2, script], "mcp", after_port=("http",))


def _on_port(
    workspace: Workspace, name: str, arguments: list[object], path: str, after_port: tuple[str, ...] = ()
) -> str:
    """A server that takes its port as PORT or, with `after_port`, as an argument before these."""
    port = free_port()
    if after_port:
        arguments = [*arguments, port, *after_port]
    server: Program = workspace.start(name, arguments, env={**os.environ, "PORT": str(port)})
    server.wait_until(lambda: is_listening(port), f"port {port} accepts connections")
    return f"http://127.0.0.1:{port}/{path}"
