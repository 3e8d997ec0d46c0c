"""The load generators: `wrk` (closed loop, HTTP/1.1), `h2load` (closed loop, HTTP/2),
`oha` (open loop, latencies corrected) and `ab`."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_OURS = Path(__file__).resolve().parents[3] / ".test" / "oha" / "bin"
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True)
class Seen:
    """What a generator saw of one load."""

    command: str
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: dict[str, int]
    # Of the answers, with their header lines unless the generator leaves them out.
    bytes: int | None = None
    p999_ms: float | None = None
    max_ms: float | None = None

    @property
    def failures(self) -> int:
        return sum(self.failed.values())


def find(program: str) -> str | None:
    """Where a program is: installed, or built into `.test`."""
    return shutil.which(program) or shutil.which(program, path=str(_OURS))


def output_of(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def found(pattern: str, output: str) -> re.Match:
    if match := re.search(pattern, output):
        return match
    raise RuntimeError(f"no {pattern!r} in the output:\n{output[-2000:]}")


def milliseconds(value: str, unit: str) -> float:
    return float(value) * _MILLISECONDS[unit]
