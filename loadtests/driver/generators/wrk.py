"""`wrk`: as many requests as come back, over HTTP/1.1."""

import json
import re
from pathlib import Path

from ..mcp import Request
from . import Seen, found, milliseconds, output_of

_SCRIPT = Path(__file__).with_name("wrk.lua")
_THREADS = 2
_ID_LENGTH = 10


def run(hosts: list[str], requests: list[Request], connections: int, seconds: float, scratch: Path) -> Seen:
    """Our own requests, taken in turn; several hosts get as many connections each."""
    threads = len(hosts) if len(hosts) > 1 else min(_THREADS, connections)
    plan = scratch / "plan.lua"
    plan.write_text(_plan(hosts, requests, threads))
    options = [f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    output = output_of(["wrk", *options, "-s", str(_SCRIPT), f"http://{hosts[0]}/"], {"PLAN": str(plan)})
    line = next(line for line in output.splitlines() if line.startswith("JSON "))
    return Seen(command=" ".join(["wrk", *options, "-s", "driver/generators/wrk.lua"]), **json.loads(line[5:]))


def as_written(host: str, path: str, seconds: float) -> Seen:
    """`wrk -t12 -c400 -d30s --latency URL`, its answer read as a person would."""
    options = ["-t12", "-c400", f"-d{round(seconds)}s", "--latency"]
    output = output_of(["wrk", *options, f"http://{host}{path}"])
    counted = found(r"(\d+) requests in ([\d.]+)(us|ms|s|m), ", output)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    failed = dict(zip(("connect", "read", "write", "timeout"), map(int, sockets.groups()))) if sockets else {}
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    failed["status"] = int(statuses[1]) if statuses else 0
    return Seen(
        command=f"wrk {' '.join(options)} http://HOST{path}",
        requests=int(counted[1]),
        seconds=milliseconds(counted[2], counted[3]) / 1e3,
        p50_ms=milliseconds(*found(r"50%\s+([\d.]+)(us|ms|s|m)\s", output).groups()),
        p99_ms=milliseconds(*found(r"99%\s+([\d.]+)(us|ms|s|m)\s", output).groups()),
        failed=failed,
    )


def _plan(hosts: list[str], requests: list[Request], threads: int) -> str:
    # JSON strings of ASCII are Lua strings.
    def texts(parts: list[str]) -> str:
        return "{" + ",".join(json.dumps(part) for part in parts) + "}"

    entries = ",".join(texts(request.wire(hosts[0], _ID_LENGTH)) for request in requests)
    where = texts(hosts if len(hosts) > 1 else [])
    return f"return {{threads={threads},hosts={where},requests={{{entries}}}}}"
