"""Servers that mean harm: what they can reach, and what of it others notice.

The server does what its caller says (`servers.py`): it dials, forks, floods and forges.
"""

from __future__ import annotations

import json

from engine import Engine
from fleet import CALL_S, Fleet, Node, of, ready, text_of, wait_until
from part import Checks, say

BRIDGE_PORT = 8765
MORE_THAN_IT_MAY = 1000
NOISE = 200_000


def show(engine: Engine, fleet: Fleet, checks: Checks) -> None:
    first = fleet.nodes[0]
    say("a server that means harm")
    for name in ("odd", "bystander"):
        deployed = first.run("deploy", "odd", "--name", name)
        checks.require(f"{name} is deployed", deployed.code == 0, deployed)
        for node in fleet.nodes:
            wait_until(lambda: echoes(node, name), f"{node.name} calls it")
    reaches(engine, fleet, checks)
    forges(fleet, checks)
    floods(engine, fleet, checks)
    forks(engine, fleet, checks)
    for name in ("odd", "bystander"):
        checks.require(f"{name} is removed", first.run("rm", name).code == 0)


def reaches(engine: Engine, fleet: Fleet, checks: Checks) -> None:
    """What it gets where it dials."""
    first = fleet.nodes[0]
    [own], [other] = of(fleet, "odd", "running"), of(fleet, "bystander", "running")
    [network] = own["NetworkSettings"]["Networks"].values()
    [neighbour] = other["NetworkSettings"]["Networks"].values()
    [about] = json.loads(engine.docker("network", "inspect", network["NetworkID"]))
    gateway = network["Gateway"] or about["IPAM"]["Config"][0].get("Gateway")
    checks.require(f"its network is internal; the engine's machine is {gateway} there", about["Internal"], about)

    def dial(host: str, port: int, path: str = "/mcp") -> str:
        say_it = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        return text_of(first.call("odd", "dial", {"host": host, "port": port, "say": say_it}))

    said = dial("127.0.0.1", BRIDGE_PORT)
    checks.require("its own bridge tells it nothing without a token", said.startswith("HTTP/1.1 401"), said)
    said = dial(neighbour["IPAddress"], BRIDGE_PORT)
    told = "is out of its reach" if said.startswith("unreachable") else "tells it nothing without a token"
    checks.require(f"another server's bridge {told}", said.startswith(("unreachable", "HTTP/1.1 401")), said)
    # Nodes that listen on loopback are out of reach; this one listens everywhere.
    said = dial(gateway, first.port)
    checks.require("a node on loopback is out of its reach", said.startswith("unreachable"), said)
    reachable = fleet.node("reachable", listen="0.0.0.0", MCP_FLEET__AUTH__MODE="none")
    try:
        wait_until(lambda: echoes(reachable, "odd"), "it calls servers")
        for path in ("/mcp/bystander/tools/call", "/mcp", "/api/deployments", "/healthz", "/metrics"):
            said = dial(gateway, reachable.port, path)
            is_refused = said.startswith("HTTP/1.1 403") and "network of servers" in said
            checks.require(f"a node that it can dial refuses {path}, and says why", is_refused, said)
        checks.require("to others that node answers", reachable.get("/healthz").status == 200)
    finally:
        checks.require("that node ends by itself", reachable.stop() == 0)
    said = dial(gateway, fleet.redis.port)
    checks.require("Redis is out of its reach", said.startswith("unreachable"), said)
    said = dial("192.0.2.1", 80)
    checks.require("so is everything else", said.startswith("unreachable"), said)


def forges(fleet: Fleet, checks: Checks) -> None:
    """Answers nobody asked for, with other calls' ids."""
    for node in fleet.nodes:
        said = text_of(node.call("odd", "forge", {}))
        checks.require(f"{node.name} gets the genuine answer among forged ones", said == "genuine", said)


def floods(engine: Engine, fleet: Fleet, checks: Checks) -> None:
    first, second, *_ = fleet.nodes
    answer = first.call("odd", "noise", {"lines": NOISE}, timeout=3 * CALL_S)
    checks.require(f"{NOISE} lines of log are written, and the call is answered", text_of(answer) == "done", answer)
    answer = first.call("odd", "flood", {"lines": 5_000}, timeout=3 * CALL_S)
    checks.require("5000 messages for nobody, and the call is answered", answer.status == 200, answer)
    checks.require("its neighbour answers", echoes(second, "bystander"))
    answer = first.call("odd", "endless", {}, timeout=3 * CALL_S)
    checks.require("a line without end is given up", "more than" in answer.body.decode(errors="replace"), answer)
    checks.require("its neighbour answers", echoes(second, "bystander"))
    took = wait_until(lambda: echoes(second, "odd"), "it answers again")
    print(f"      it answers again after {took:.2f} s")


def forks(engine: Engine, fleet: Fleet, checks: Checks) -> None:
    first, second, *_ = fleet.nodes
    [container] = of(fleet, "odd", "running")
    most = container["HostConfig"]["PidsLimit"]
    said = text_of(first.call("odd", "fork", {"processes": MORE_THAN_IT_MAY}))
    started = int(said.split()[0])
    checks.require(f"a fork bomb is contained: {said}", 0 < started < most and "then" in said, said)
    for node in fleet.nodes:
        checks.require(f"its neighbour answers through {node.name}", echoes(node, "bystander"))

    def named() -> str:
        told = first.deployment("odd") or {}
        return " ".join(filter(None, [told.get("reason"), *(it.get("reason") for it in told.get("containers", []))]))

    wait_until(lambda: "processes" in named(), "it is named")
    checks.require(f"it is named: {named()}", True)
    engine.docker("kill", container["Id"])
    wait_until(lambda: ready(first, "odd") == 1 and echoes(second, "odd"), "it is back")
    checks.require("killed, it is back without what it had started", "processes" not in named(), named())


def echoes(node: Node, name: str) -> bool:
    try:
        return text_of(node.call(name, "echo", {"text": "hello"})) == "hello"
    except (OSError, AssertionError):
        return False
