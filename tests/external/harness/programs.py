"""Starts programs, waits until they are ready and ends them, always, by their process group.

Not for knowing what the programs are: gateway.py, servers.py and clients.py do.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 5.0
READY_S = 30.0
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Program:
    """One running program. Its output goes to a file, so that nothing blocks on an unread pipe.

    `env` is its whole environment; without it the program gets the script's own.
    """

    def __init__(self, arguments: Sequence[object], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.name = log.stem
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=log.parent,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def wait_until(self, is_ready: Callable[[], bool], what: str) -> None:
        """Polls until ready. Raises when the program ends first, or is not ready in time."""
        deadline = time.monotonic() + READY_S
        while not is_ready():
            if (code := self._process.poll()) is not None:
                raise RuntimeError(f"{self.name} ended with {code} before it was ready\n{self.tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: {what} is not true after {READY_S} s\n{self.tail()}")
            time.sleep(0.05)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 40) -> str:
        last = self.output().splitlines()[-lines:]
        return "\n".join(f"  {self.name} | {line}" for line in last)

    def stop(self) -> None:
        """Asks the program to end, then makes it; also what it has started itself."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _die_with_parent() -> None:
    # A script that is killed outright cannot clean up; the kernel then does it.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port nobody listens on, outside the range that outgoing connections take theirs from."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
