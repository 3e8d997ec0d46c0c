"""The load generators: `wrk` with our requests, and `wrk` and `ab` as written."""

import json
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .mcp import Request

_SCRIPT = Path(__file__).with_name("wrk.lua")
_THREADS = 2
_ID_LENGTH = 10
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
    bytes: int | None = None
    p999_ms: float | None = None
    max_ms: float | None = None

    @property
    def failures(self) -> int:
        return sum(self.failed.values())


def wrk(host: str, requests: list[Request], connections: int, seconds: float, scratch: Path) -> Seen:
    """Closed-loop load with our own requests, taken in turn."""
    plan = scratch / "plan.lua"
    plan.write_text(_plan(host, requests))
    options = [f"-t{_THREADS}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    output = _run(["wrk", *options, "-s", str(_SCRIPT), f"http://{host}/", "--", str(plan)])
    line = next(line for line in output.splitlines() if line.startswith("JSON "))
    return Seen(command=" ".join(["wrk", *options, "-s", "driver/wrk.lua"]), **json.loads(line[5:]))


def repeat(host: str, request: Request, times: int) -> None:
    """The same request over one connection, one after the other."""
    name, port = host.split(":")
    with socket.create_connection((name, int(port)), 60) as connection:
        reader = connection.makefile("rb")
        for number in range(times):
            id = str(10 ** (_ID_LENGTH - 1) + number)
            connection.sendall(id.join(request.wire(host, _ID_LENGTH)).encode() if request.body else request.wire(host, 0)[0].encode())
            status, length = reader.readline().split()[1], 0
            while (line := reader.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line[15:])
            reader.read(length)
            if status != b"200":
                raise RuntimeError(f"status {status.decode()} to {request.method} {request.path}")


def wrk_as_written(host: str, path: str, seconds: float) -> Seen:
    """`wrk -t12 -c400 -d30s --latency URL`, its answer read as a person would."""
    options = ["-t12", "-c400", f"-d{round(seconds)}s", "--latency"]
    output = _run(["wrk", *options, f"http://{host}{path}"])
    counted = _find(r"(\d+) requests in ([\d.]+)(us|ms|s|m), ", output)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    failed = dict(zip(("connect", "read", "write", "timeout"), map(int, sockets.groups()))) if sockets else {}
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    failed["status"] = int(statuses[1]) if statuses else 0
    return Seen(
        command=f"wrk {' '.join(options)} http://HOST{path}",
        requests=int(counted[1]),
        seconds=_milliseconds(counted[2], counted[3]) / 1e3,
        p50_ms=_milliseconds(*_find(r"50%\s+([\d.]+)(us|ms|s|m)\s", output).groups()),
        p99_ms=_milliseconds(*_find(r"99%\s+([\d.]+)(us|ms|s|m)\s", output).groups()),
        failed=failed,
    )


def ab_as_written(host: str, path: str) -> Seen:
    """`ab -n 1000 -c 50 URL`: a new connection per request."""
    options = ["-n", "1000", "-c", "50"]
    output = _run(["ab", *options, f"http://{host}{path}"])
    statuses = re.search(r"Non-2xx responses:\s+(\d+)", output)
    return Seen(
        command=f"ab {' '.join(options)} 'http://HOST{path}'",
        requests=int(_find(r"Complete requests:\s+(\d+)", output)[1]),
        seconds=float(_find(r"Time taken for tests:\s+([\d.]+)", output)[1]),
        p50_ms=float(_find(r"50%\s+(\d+)", output)[1]),
        p99_ms=float(_find(r"99%\s+(\d+)", output)[1]),
        failed={
            "failed": int(_find(r"Failed requests:\s+(\d+)", output)[1]),
            "status": int(statuses[1]) if statuses else 0,
        },
    )


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def _plan(host: str, requests: list[Request]) -> str:
    # JSON strings of ASCII are Lua strings.
    wires = (request.wire(host, _ID_LENGTH) for request in requests)
    entries = (f"{{{json.dumps(before)},{json.dumps(after) if after else 'nil'}}}" for before, after in wires)
    return f"return {{threads={_THREADS},requests={{{','.join(entries)}}}}}"


def _find(pattern: str, output: str) -> re.Match:
    if found := re.search(pattern, output):
        return found
    raise RuntimeError(f"no {pattern!r} in the output:\n{output[-2000:]}")


def _milliseconds(value: str, unit: str) -> float:
    return float(value) * _MILLISECONDS[unit]
