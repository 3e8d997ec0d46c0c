"""The cluster of docker-compose.yml, under a project name of its own.

Not for what is expected of it: `run` is.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine import Engine

NODES = ("node-1", "node-2", "node-3")
DEMOS = ("demo-1", "demo-2")
WAIT_S = 90.0
POLL_S = 0.2


class Cluster:
    def __init__(self, engine: Engine, directory: Path, project: str, env: dict[str, str]) -> None:
        self._engine = engine
        self._directory = directory
        self._project = project
        self._env = {**engine.env, **env}

    def compose(self, *arguments: str, timeout: float) -> None:
        """Runs a compose command. Raises with the end of what it said when it fails."""
        command = ["docker-compose", "--project-name", self._project, *arguments]
        done = subprocess.run(
            command,
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if done.returncode != 0:
            said = "\n".join(done.stdout.splitlines()[-60:])
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{said}")

    def container(self, service: str) -> str:
        """Id of a service's container, also of one that does not run."""
        project = f"label=com.docker.compose.project={self._project}"
        named = f"label=com.docker.compose.service={service}"
        return self._engine.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", project, "--filter", named)

    def inspect(self, service: str) -> dict[str, Any]:
        [found] = json.loads(self._engine.docker("inspect", self.container(service)))
        return found

    def address(self, service: str, network: str, port: int = 8080) -> tuple[str, int]:
        """Where a container is reached from this machine, past the load balancer."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return networks[f"{self._project}_{network}"]["IPAddress"], port

    def wait_healthy(self, services: Sequence[str]) -> None:
        def is_healthy() -> bool:
            return all(self.inspect(service)["State"]["Health"]["Status"] == "healthy" for service in services)

        wait_until(is_healthy, f"{', '.join(services)} healthy")

    def kill(self, service: str) -> None:
        self._engine.docker("kill", self.container(service))

    def stop(self, service: str) -> None:
        """Asks the container to end and waits until it has."""
        self._engine.docker("stop", "--time", "15", self.container(service))

    def start(self, service: str) -> None:
        self._engine.docker("start", self.container(service))

    def exit_code(self, service: str) -> int:
        return self.inspect(service)["State"]["ExitCode"]

    def logs(self, lines: int = 40) -> str:
        command = ["docker-compose", "--project-name", self._project, "logs", "--no-color", "--tail", str(lines)]
        done = subprocess.run(
            command, cwd=self._directory, env=self._env, capture_output=True, text=True, timeout=60
        )
        states = self._engine.docker("ps", "--all", "--format", "{{.Names}}\t{{.Status}}", is_checked=False)
        return f"{states}\n{done.stdout}{done.stderr}"

    def leftovers(self) -> list[str]:
        """What bears the project's label or name and should be gone."""
        label = ["--filter", f"label=com.docker.compose.project={self._project}"]
        found = {
            "container": self._engine.docker("ps", "--all", "--format", "{{.Names}}", *label),
            "network": self._engine.docker("network", "ls", "--format", "{{.Name}}"),
            "volume": self._engine.docker("volume", "ls", "--format", "{{.Name}}"),
        }
        return [
            f"{kind} {name}"
            for kind, names in found.items()
            for name in names.split()
            if kind == "container" or name.startswith(f"{self._project}_")
        ]


def wait_until(is_so: Callable[[], bool], what: str, limit_s: float = WAIT_S) -> float:
    """Polls; the seconds it took. Raises when it is not so in time."""
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > limit_s:
            raise TimeoutError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - begun
