"""A Docker engine of the test's own: its images, containers, networks and ports are nobody else's.

It runs in a network namespace that the test enters too, so that no rule, bridge or port of it touches the machine's.
It keeps its images below the cache directory, where a second run finds them. Not for what runs in it.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO

START_S = 60.0
STOP_S = 60.0
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

CANNOT = """\
The {part} part needs a Docker engine, and here none can be started: {why}.
{skip}=1 leaves the part out."""


class CannotStart(Exception):
    """This machine does not let us run an engine."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(CANNOT.format(part=part, skip=skipped_by(part), why=why))


def skipped_by(part: str) -> str:
    """The variable that leaves a part out."""
    return f"MCP_FLEET_SKIP_{part.upper()}"


def require_root(part: str) -> None:
    """Before anything is downloaded for nothing."""
    if os.geteuid() != 0:
        raise CannotStart(part, "it takes root")


class Engine:
    """The engine of one part of the tests, with its images below `cache`."""

    def __init__(self, part: str, cache: Path) -> None:
        self._part = part
        self._cache = cache
        # The path of a socket is short by necessity. One for each cache, whose lock it is made under.
        self._run = Path("/run") / f"mcp-fleet-docker-{hashlib.sha256(bytes(cache)).hexdigest()[:8]}"
        self._lock: IO[str] | None = None
        self.log = self._run / "dockerd.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        self.env = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self._run}/docker.sock",
            "DOCKER_CONFIG": str(self._run / "config"),
            "DOCKER_BUILDKIT": "0",
        }
        for foreign in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "COMPOSE_FILE", "COMPOSE_PROFILES"):
            self.env.pop(foreign, None)

    def __enter__(self) -> Engine:
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def docker(self, *arguments: str, is_checked: bool = True, timeout: float = 120) -> str:
        """Runs a docker command; its standard output. Raises with its standard error when it fails."""
        command = ["docker", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout)
        if is_checked and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout.strip()

    def tail(self, lines: int = 30) -> str:
        """The end of its log, without what its children say about themselves."""
        said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([line for line in said if "level=info" not in line][-lines:])

    def _begin(self) -> None:
        (self._cache / "docker").mkdir(parents=True, exist_ok=True)
        # Two engines would spoil each other's images. Released with the process.
        self._lock = (self._cache / "docker.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        shutil.rmtree(self._run, ignore_errors=True)
        self._run.mkdir()
        self._leave_the_network()
        self.start()
        self._tidy()

    def start(self) -> None:
        """Runs the daemon, as often as it was stopped."""
        command: list[str | Path] = ["dockerd", "--data-root", self._cache / "docker"]
        command += ["--exec-root", self._run / "exec", "--pidfile", self._run / "pid"]
        command += ["--host", self.env["DOCKER_HOST"], "--config-file", self._run / "none.json", "--log-level", "warn"]
        # Networks are made by name; the default one is not needed.
        command += ["--bridge", "none"]
        command += ["--containerd-namespace", self._run.name, "--containerd-plugins-namespace", f"{self._run.name}-p"]
        (self._run / "none.json").write_text("{}")
        with self.log.open("ab") as output:
            self._daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        deadline = time.monotonic() + START_S
        while subprocess.run(["docker", "info"], env=self.env, capture_output=True).returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise CannotStart(self._part, f"dockerd did not come up\n{self.tail()}\n")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends the daemon, and with it every container."""
        if self._daemon and self._daemon.poll() is None:
            self._daemon.terminate()
            try:
                self._daemon.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._daemon.pid, signal.SIGKILL)
                self._daemon.wait()

    def _tidy(self) -> None:
        """Removes what a run that was killed has left, and layers that no run of the last day has used."""
        if left := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *left)
        for kind in ("network", "volume"):
            self.docker(kind, "prune", "--force")
        self.docker("image", "prune", "--force", "--filter", "until=24h")

    def _end(self) -> None:
        self.stop()
        if self._lock:
            shutil.rmtree(self._run, ignore_errors=True)
            self._lock.close()

    def _leave_the_network(self) -> None:
        """Moves this process, and with it all that it starts, into a network of its own with nothing but loopback."""
        if _LIBC.unshare(_CLONE_NEWNET) != 0:
            why = f"a network namespace is refused ({os.strerror(ctypes.get_errno())})"
            raise CannotStart(self._part, why)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
