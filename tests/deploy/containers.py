"""Nodes in containers of the engine that they deploy on: `docker-compose.yml` with `deploy/compose/docker.yml`.

The image is made of the debug build. What the image of a release is, and what the cluster does without an engine, is in
`tests/compose`.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path
from typing import Any

from agent import Session
from engine import Engine
from fleet import wait_until
from images import REPOSITORY
from part import Checks, say

sys.path.append(str(Path(__file__).resolve().parent.parent / "compose"))

from cluster import NODES, Cluster  # noqa: E402

FILES = ("-f", "docker-compose.yml", "-f", "deploy/compose/docker.yml", "-f", "tests/deploy/odd.yml")
MODERN = "2026-07-28"
NOW = {"timezone": "Europe/Berlin"}
BRIDGE_PORT = 8765


def show(engine: Engine, checks: Checks) -> None:
    say("nodes in containers")
    socket = engine.env["DOCKER_HOST"].removeprefix("unix://")
    settings = {"DOCKER_SOCKET": socket, "DOCKER_GID": str(os.stat(socket).st_gid)}
    cluster = Cluster(engine, REPOSITORY, f"mcp-fleet-nodes-{os.getpid()}", settings)
    try:
        cluster.compose(*FILES, "up", "--detach", "--no-build", *NODES, timeout=180)
        cluster.wait_healthy(NODES)
        checks.require("three nodes with the engine's socket are healthy", True)
        deployed(engine, cluster, checks)
    except BaseException:
        print(f"\nthe end of the containers' logs:\n{cluster.logs()}")
        raise
    finally:
        cluster.compose(*FILES, "down", "--volumes", "--timeout", "15", timeout=180)
    checks.require("nothing of the project is left", not cluster.leftovers(), cluster.leftovers())
    label = ["--filter", "label=dev.mcp-fleet.fleet"]
    left = engine.docker("network", "ls", "--format", "{{.Name}}", *label).split()
    checks.require("nor a network of its servers", not [name for name in left if "joined" in name], left)


def deployed(engine: Engine, cluster: Cluster, checks: Checks) -> None:
    first, *others = NODES
    said = run(engine, cluster, first, "deploy", "time")
    checks.require(f"{first} deploys a stdio server", True, said)
    for name in others:
        address = cluster.address(name, "edge")
        url = f"http://{address[0]}:{address[1]}"
        wait_until(lambda: get(address, "/mcp/time/tools/list")[0] == 200, f"{name} serves it")
        session = Session(url, "time")
        answer = session.tool("get_current_time", NOW)
        checks.require(f"{name} calls it in a session", "Europe/Berlin" in answer, answer)
        answer = modern(address, "get_current_time", NOW)
        checks.require(f"{name} calls it without one", "Europe/Berlin" in answer, answer)
        said = run(engine, cluster, name, "call", "time", "get_current_time", json.dumps(NOW))
        checks.require(f"as does its own command line", "Europe/Berlin" in said, said)
    run(engine, cluster, first, "deploy", "odd")
    wait_until(lambda: get(cluster.address(first, "edge"), "/mcp/odd/tools/list")[0] == 200, "it is served")
    hostile(engine, cluster, checks)
    for name in ("time", "odd"):
        run(engine, cluster, others[0], "rm", name)
        checks.require(f"{others[0]} removes {name}", True)


def hostile(engine: Engine, cluster: Cluster, checks: Checks) -> None:
    """Nodes share a network with servers: those get nothing from them."""
    first = NODES[0]
    address = cluster.address(first, "edge")

    def dial(host: str, port: int, path: str) -> str:
        say_it = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        body = json.dumps({"name": "dial", "arguments": {"host": host, "port": port, "say": say_it}})
        return post(address, "/mcp/odd/tools/call", body, {})[1]

    networks = {name: cluster.inspect(name)["NetworkSettings"]["Networks"] for name in NODES}
    for name, joined in networks.items():
        shared = [it["IPAddress"] for network, it in joined.items() if network.endswith("internal-joined")]
        checks.require(f"{name} has joined the servers' network", len(shared) == 1, joined)
        for path in ("/mcp/time/tools/call", "/api/deployments", "/healthz"):
            said = dial(shared[0], 8080, path)
            checks.require(f"{name} refuses a server {path}", "HTTP/1.1 403" in said and "network of servers" in said, said)
        apart = [it["IPAddress"] for network, it in joined.items() if not network.endswith("internal-joined")]
        for one in apart:
            said = dial(one, 8080, "/healthz")
            checks.require(f"{name} is out of reach at its other addresses", "unreachable" in said, said)
    [time] = engine.docker("ps", "--quiet", "--filter", "label=dev.mcp-fleet.server=time").split()
    [state] = json.loads(engine.docker("inspect", time))
    [neighbour] = state["NetworkSettings"]["Networks"].values()
    said = dial(neighbour["IPAddress"], BRIDGE_PORT, "/mcp")
    checks.require("another server's bridge tells it nothing without a token", "HTTP/1.1 401" in said, said)
    redis = cluster.inspect("redis")["NetworkSettings"]["Networks"]
    for network in redis.values():
        said = dial(network["IPAddress"], 6379, "/")
        checks.require("Redis is out of its reach", "unreachable" in said, said)


def run(engine: Engine, cluster: Cluster, service: str, *arguments: str) -> str:
    """A command as people type it, inside a node's container."""
    return engine.docker("exec", cluster.container(service), "/mcp-fleet", *arguments)


def modern(address: tuple[str, int], tool: str, arguments: dict[str, Any]) -> str:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "deploy", "version": "1"},
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {"Mcp-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
    return post(address, "/mcp/time", body, headers)[1]


def get(address: tuple[str, int], path: str) -> tuple[int, str]:
    return send(address, "GET", path, None, {})


def post(address: tuple[str, int], path: str, body: str, headers: dict[str, str]) -> tuple[int, str]:
    own = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    return send(address, "POST", path, body, {**own, **headers})


def send(
    address: tuple[str, int], method: str, path: str, body: str | None, headers: dict[str, str]
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request(method, path, body, {"Host": "localhost", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
