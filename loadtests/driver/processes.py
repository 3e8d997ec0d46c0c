"""Processes the load tests start, and stop again by their ids whatever happens."""

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

_LISTENS = re.compile(r"^listening on (\S+)$", re.MULTILINE)


class StartError(RuntimeError):
    """A process ended or stayed silent instead of getting ready."""


class Processes:
    """Owns what it starts; `with` ends it all, the last started first."""

    def __init__(self, logs: Path):
        self._logs = logs
        self._started: list[tuple[str, subprocess.Popen]] = []

    def __enter__(self):
        # Ends by a signal unwind like any other failure.
        signal.signal(signal.SIGTERM, _raise_exit)
        return self

    def __exit__(self, *_):
        for _, process in reversed(self._started):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, command: list[str]) -> int:
        """Starts a process whose output goes to a log, and returns its id."""
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
            )
        self._started.append((name, process))
        return process.pid

    def kill(self, name: str) -> None:
        """Ends a process without a word; the same name may be started again."""
        process = self._forget(name)
        process.kill()
        process.wait()

    def stop(self, name: str, seconds: float) -> int:
        """Asks a process to end and returns its exit code."""
        process = self._forget(name)
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def pid(self, name: str) -> int:
        return self._process(name).pid

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def address_of(self, name: str) -> str:
        """The address a tool of ours says it listens on."""
        said = self._until(
            name, lambda: _LISTENS.search(self.log(name).read_text()), "did not say where it listens"
        )
        return said[1]

    def wait_for_port(self, name: str, port: int) -> None:
        self._until(name, lambda: _accepts(port), f"did not listen on port {port}")

    def wait_until(self, name: str, ready) -> None:
        self._until(name, ready, "did not get ready")

    def _until(self, name: str, ready, complaint: str):
        process = self._process(name)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if process.poll() is not None:
                complaint = f"ended with {process.returncode}"
                break
            if answer := ready():
                return answer
            time.sleep(0.05)
        raise StartError(f"{name} {complaint}\n{self.log(name).read_text()[-2000:]}")

    def _forget(self, name: str) -> subprocess.Popen:
        process = self._process(name)
        self._started.remove((name, process))
        return process

    def _process(self, name: str) -> subprocess.Popen:
        return next(process for started, process in self._started if started == name)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def _accepts(port: int) -> bool:
    try:
        with closing(socket.create_connection(("127.0.0.1", port), 1)):
            return True
    except OSError:
        return False


def _environment() -> dict[str, str]:
    """Ours without what would configure a gateway: defaults are measured."""
    ours = ("MCP_FLEET_", "OTEL_", "REDIS_", "HEALTH_CHECK_", "RUST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _raise_exit(*_):
    raise SystemExit("stopped by a signal")
