"""What is measured and what it needs: built, started, ready."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import nginx, redis
from .mcp import Request
from .nodes import Nodes, is_ready
from .processes import Processes, free_port
from .subjects import Kind, Subject

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent


class Missing(RuntimeError):
    """A program the load tests need is not installed."""


@dataclass
class Fleet:
    """Everything that runs for the whole run; gateways come and go with their scenario."""

    processes: Processes
    binaries: dict[str, str]
    scratch: Path
    upstream: Subject
    redis_port: int
    # What the gateway is compared with.
    others: list[Subject] = field(default_factory=list)

    def upstream_counts(self) -> dict[str, int]:
        """What the upstream was asked so far, our asking left out."""
        return json.loads(Request("GET", "/stats").send(self.upstream.host).body)

    def address(self, server: str) -> str:
        """Where a server of the upstream is."""
        return f"http://{self.upstream.host}{self.upstream.path(server)}"

    @contextmanager
    def gateway(self, servers: tuple[str, ...]) -> Iterator[Subject]:
        """One node with default settings, on the Redis of the run."""
        host = f"127.0.0.1:{free_port()}"
        command = [self.binaries["mcp-fleet"], "serve", "--listen", host]
        command += ["--redis", f"redis://127.0.0.1:{self.redis_port}"]
        for server in servers:
            command += ["--server", f"{server}={self.address(server)}"]
        pid = self.processes.start("gateway", command)
        try:
            self.processes.wait_until("gateway", lambda: is_ready(host))
            yield Subject("gateway", host, (pid,), Kind.GATEWAY, self.redis_port, http2_host=host)
        finally:
            self.processes.stop("gateway", 10)

    @contextmanager
    def nodes(self, number: int, servers: dict[str, str], *settings: str) -> Iterator["Stage"]:
        """Several nodes on a Redis of their own, with further lines of configuration."""
        scratch = Path(tempfile.mkdtemp(dir=self.scratch))
        with Processes(scratch) as processes:
            port = redis.start(processes, free_port())
            binary = self.binaries["mcp-fleet"]
            nodes = Nodes(processes, binary, scratch, port, servers, settings=settings, started_by=())
            for _ in range(number):
                nodes.add()
            yield Stage(processes, nodes, port)


@dataclass(frozen=True)
class Stage:
    """Nodes of a scenario of their own."""

    processes: Processes
    nodes: Nodes
    redis_port: int

    def subject(self, name: str, *numbers: int) -> Subject:
        """Nodes (all, or by number) as one subject; requests go to the first."""
        chosen = numbers or range(len(self.nodes.hosts))
        pids = tuple(self.nodes.pid(number) for number in chosen)
        host = self.nodes.hosts[chosen[0]]
        return Subject(name, host, pids, Kind.GATEWAY, self.redis_port, http2_host=host)


def start(
    processes: Processes, binaries: dict[str, str], scratch: Path, upstream_port: int, peers: list[Subject]
) -> Fleet:
    """Starts the upstream, and what stands before it beside the gateway."""
    processes.start("upstream", [binaries["upstream"], f"127.0.0.1:{upstream_port}"])
    host = processes.address_of("upstream")
    upstream = Subject("upstream", host, (processes.pid("upstream"),), Kind.FLOOR, http2_host=host)

    processes.start("bare-proxy", [binaries["bare-proxy"], "127.0.0.1:0", host])
    proxy_host = processes.address_of("bare-proxy")
    proxy_pid = processes.pid("bare-proxy")
    others = [Subject("bare-proxy", proxy_host, (proxy_pid,), Kind.FLOOR, http2_host=proxy_host)]
    if shutil.which("nginx"):
        others.append(nginx.start(processes, scratch, host))
    others += [upstream, *peers]

    redis_port = redis.start(processes, free_port())
    return Fleet(processes, binaries, scratch, upstream, redis_port, others)


def build() -> dict[str, str]:
    """Builds the release binaries and returns their paths by name."""
    return _cargo(ROOT, "--bin", "mcp-fleet") | _cargo(HERE)


def build_tools() -> dict[str, str]:
    """The same without the gateway."""
    return _cargo(HERE)


def commit() -> str:
    """What is measured; `-changed` when the tree is not as it was committed."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    drivers = [f"loadtests/{name}" for name in ("src", "driver", "run", "soak", "redis-cost")]
    present = [name for name in drivers if (ROOT / name).exists()]
    changed = git("status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock", *present).strip()
    return git("rev-parse", "--short=10", "HEAD").strip() + ("-changed" if changed else "")


def require(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise Missing(f"not installed: {', '.join(missing)} (Debian: apt-get install wrk apache2-utils redis-server)")


def _cargo(directory: Path, *selection: str) -> dict[str, str]:
    command = ["nice", "-n", "10", "cargo", "build", "--release", "--locked", *selection]
    built = subprocess.run(
        [*command, "--message-format=json-render-diagnostics"], cwd=directory, stdout=subprocess.PIPE, check=True
    )
    messages = (json.loads(line) for line in built.stdout.splitlines())
    return {
        message["target"]["name"]: message["executable"] for message in messages if message.get("executable")
    }
