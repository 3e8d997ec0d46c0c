"""Several nodes on one Redis, each of which can be killed and started again."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from .mcp import Request
from .processes import Processes, free_port


@dataclass
class Nodes:
    """Nodes of one fleet, by number. A killed one comes back under its address."""

    processes: Processes
    binary: str
    scratch: Path
    redis_port: int
    # Names and addresses of servers.
    servers: dict[str, str]
    # Further lines of configuration.
    settings: tuple[str, ...] = ()
    # Nodes that run for long beside other work give way to it.
    started_by: tuple[str, ...] = ("nice", "-n", "5")
    hosts: list[str] = field(default_factory=list)
    killed_at: dict[str, float] = field(default_factory=dict)

    def add(self) -> str:
        self.hosts.append(f"127.0.0.1:{free_port()}")
        self.start(len(self.hosts) - 1)
        return self.hosts[-1]

    def start(self, number: int) -> None:
        host = self.hosts[number]
        config = self.scratch / f"node-{number}.toml"
        config.write_text(self._config(number, host))
        self.processes.start(name(number), [*self.started_by, self.binary, "serve", "--config", str(config)])
        self.processes.wait_until(name(number), lambda: is_ready(host))

    def kill(self, number: int) -> None:
        # First: who notices is told that it was us.
        self.killed_at[self.hosts[number]] = time.monotonic()
        self.processes.kill(name(number))

    def was_killed(self, host: str, since: float) -> bool:
        return self.killed_at.get(host, 0.0) >= since

    def pid(self, number: int) -> int:
        return self.processes.pid(name(number))

    def _config(self, number: int, host: str) -> str:
        lines = [
            "[node]",
            f'listen = "{host}"',
            f'name = "{name(number)}"',
            'secret = "the same at every node of this load test"',
            "demo = false",
            "[redis]",
            f'url = "redis://127.0.0.1:{self.redis_port}"',
        ]
        for server, url in self.servers.items():
            lines += [f"[servers.{server}]", f'url = "{url}"']
        return "\n".join([*lines, *self.settings]) + "\n"


def name(number: int) -> str:
    return f"node-{number + 1}"


def is_ready(host: str) -> bool:
    try:
        return Request("GET", "/readyz").send(host).status == 200
    except OSError:
        return False
