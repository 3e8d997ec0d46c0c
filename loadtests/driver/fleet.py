"""What is measured and what it needs: built, started, ready."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .mcp import Request
from .processes import Processes, free_port

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent


class Missing(RuntimeError):
    """A program the load tests need is not installed."""


@dataclass(frozen=True)
class Subject:
    """Something that is asked: the process to measure and where it listens."""

    name: str
    host: str
    pid: int


@dataclass(frozen=True)
class Fleet:
    """Everything that runs, the gateway first among the subjects."""

    subjects: list[Subject]
    upstream: Subject
    redis_port: int | None

    def upstream_counts(self) -> dict[str, int]:
        """What the upstream was asked so far, our asking left out."""
        return json.loads(Request("GET", "/stats").send(self.upstream.host).body)


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


def start(processes: Processes, binaries: dict[str, str]) -> Fleet:
    """Starts one node in front of one upstream, and the bare proxy in front of the same."""
    processes.start("upstream", [binaries["upstream"], "127.0.0.1:0"])
    upstream = processes.address_of("upstream")
    upstream_pid = processes.pid("upstream")

    processes.start("bare-proxy", [binaries["bare-proxy"], "127.0.0.1:0", upstream])
    proxy = Subject("bare-proxy", processes.address_of("bare-proxy"), processes.pid("bare-proxy"))

    redis_port = _start_redis(processes)
    gateway = _start_gateway(processes, binaries["mcp-fleet"], upstream, redis_port)
    return Fleet([gateway, proxy], Subject("upstream", upstream, upstream_pid), redis_port)


def require(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise Missing(f"not installed: {', '.join(missing)} (Debian: apt-get install wrk apache2-utils redis-server)")


def _start_redis(processes: Processes) -> int | None:
    if shutil.which("redis-server") is None:
        return None
    port = free_port()
    nothing_on_disk = ["--save", "", "--appendonly", "no"]
    processes.start("redis", ["redis-server", "--bind", "127.0.0.1", "--port", str(port), *nothing_on_disk])
    processes.wait_for_port("redis", port)
    return port


def _start_gateway(processes: Processes, binary: str, upstream: str, redis_port: int | None) -> Subject:
    host = f"127.0.0.1:{free_port()}"
    command = [binary, "serve", "--listen", host]
    if redis_port:
        command += ["--redis", f"redis://127.0.0.1:{redis_port}"]
    for server in ("demo", "sessions"):
        command += ["--server", f"{server}=http://{upstream}/mcp/{server}"]
    pid = processes.start("gateway", command)
    processes.wait_until("gateway", lambda: _is_ready(host))
    return Subject("gateway", host, pid)


def _is_ready(host: str) -> bool:
    try:
        return Request("GET", "/readyz").send(host).status == 200
    except OSError:
        return False


def _cargo(directory: Path, *selection: str) -> dict[str, str]:
    command = ["nice", "-n", "10", "cargo", "build", "--release", "--locked", *selection]
    built = subprocess.run(
        [*command, "--message-format=json-render-diagnostics"], cwd=directory, stdout=subprocess.PIPE, check=True
    )
    messages = (json.loads(line) for line in built.stdout.splitlines())
    return {
        message["target"]["name"]: message["executable"] for message in messages if message.get("executable")
    }
