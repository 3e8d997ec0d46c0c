"""Real nodes on the engine's machine, a Redis they share, and the commands people type.

Not for what is expected of them: `run` is.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import Engine
from part import free_port
from servers import PROGRAM

WAIT_S = 90.0
POLL_S = 0.05
CALL_S = 20.0


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Answer:
    status: int
    node: str
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Redis:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


class Node:
    """A node process; it can be killed and run again under its name."""

    def __init__(self, name: str, directory: Path, environment: dict[str, str], listen: str = "127.0.0.1") -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / f"{name}.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "MCP_FLEET__NODE__LISTEN": f"{listen}:{self.port}",
            "MCP_FLEET__NODE__NAME": name,
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "serve"], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self.is_alive, f"{self.name} answers")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """Asks it to end; its exit code."""
        assert self._process
        self._process.terminate()
        code = self._process.wait(60)
        self._process = None
        return code

    def is_alive(self) -> bool:
        try:
            return self.get("/healthz", timeout=2).status == 200
        except OSError:
            return False

    def get(self, path: str, timeout: float = CALL_S) -> Answer:
        return self._send("GET", path, None, timeout)

    def post(self, path: str, document: Any, timeout: float = CALL_S) -> Answer:
        return self._send("POST", path, json.dumps(document).encode(), timeout)

    def call(self, server: str, tool: str, arguments: dict[str, Any], timeout: float = CALL_S) -> Answer:
        return self.post(f"/mcp/{server}/tools/call", {"name": tool, "arguments": arguments}, timeout)

    def _send(self, method: str, path: str, body: bytes | None, timeout: float) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheader("x-mcp-fleet-node", ""), answer.read())
        finally:
            connection.close()

    def run(self, *arguments: str, timeout: float = WAIT_S) -> Said:
        """A command as people type it, told to ask this node."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            env={**self._environment, "MCP_FLEET_URL": self.url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def deployment(self, name: str) -> dict[str, Any] | None:
        answer = self.get(f"/api/deployments/{name}")
        return answer.json() if answer.status == 200 else None


class Fleet:
    """Nodes that share a Redis and an engine."""

    def __init__(self, engine: Engine, directory: Path, names: list[str], settings: dict[str, str]) -> None:
        self.engine = engine
        self.redis = Redis(directory)
        environment = {
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}",
            "MCP_FLEET__ENGINE__DOCKER__HOST": engine.env["DOCKER_HOST"],
            "MCP_FLEET__CLUSTER__LEASE_TTL": "2s",
            "MCP_FLEET__NODE__DRAIN": "5s",
            **settings,
        }
        self._directory = directory
        self._environment = environment
        self.nodes: list[Node] = []
        try:
            for name in names:
                self.nodes.append(self.node(name))
        except BaseException:
            self.end()
            raise

    def node(self, name: str, listen: str = "127.0.0.1", **settings: str) -> Node:
        """One more node, which the caller ends."""
        return Node(name, self._directory, {**self._environment, **settings}, listen)

    def end(self) -> None:
        for node in self.nodes:
            node.kill()
        self.redis.kill()

    def containers(self, *states: str) -> list[dict[str, Any]]:
        """The engine's own view of all that bears a fleet's label."""
        filters = ["--filter", "label=dev.mcp-fleet.server"]
        for state in states:
            filters += ["--filter", f"status={state}"]
        found = self.engine.docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()
        # What goes away in between is left out, and makes the command fail.
        return json.loads(self.engine.docker("inspect", *found, is_checked=False)) if found else []

    def leftovers(self) -> list[str]:
        label = ["--filter", "label=dev.mcp-fleet.fleet"]
        found = [
            self.engine.docker("ps", "--all", "--format", "container {{.Names}}", *label),
            self.engine.docker("network", "ls", "--format", "network {{.Name}}", *label),
            self.engine.docker("volume", "ls", "--format", "volume {{.Name}}", *label),
        ]
        return [line for text in found for line in text.splitlines()]

    def logs(self, lines: int = 40) -> str:
        parts = []
        for node in self.nodes:
            said = node.log.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"{node.name}:\n" + "\n".join(said))
        states = self.engine.docker("ps", "--all", "--format", "{{.Names}}\t{{.Status}}", is_checked=False)
        return "\n\n".join([states, *parts])


def of(fleet: Fleet, server: str, *states: str) -> list[dict]:
    return [it for it in fleet.containers(*states) if it["Config"]["Labels"]["dev.mcp-fleet.server"] == server]


def ready(node: Node, name: str) -> int:
    return (node.deployment(name) or {}).get("ready", 0)


def is_served(node: Node, server: str) -> bool:
    return node.get(f"/mcp/{server}/tools/list").status == 200


def text_of(answer: Answer) -> str:
    """The text of a call's result; raises when it is none."""
    if answer.status != 200:
        raise AssertionError(f"status {answer.status}: {answer.body!r}")
    result = answer.json()
    if result.get("isError"):
        raise AssertionError(f"an error: {answer.body!r}")
    return "".join(block.get("text", "") for block in result["content"])


def wait_until(is_so: Callable[[], bool], what: str, limit_s: float = WAIT_S) -> float:
    """Polls; the seconds it took. Raises when it is not so in time."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > limit_s:
            raise AssertionError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - begun
