"""`oha`: requests at a fixed rate whatever the answers take (open loop).

A latency counts from when its request was due, not from when a free connection
sent it (`--latency-correction`), so that waiting is not left out.
"""

import json
import math
from pathlib import Path

from ..mcp import Request
from . import Seen, find, output_of

_ID = 1_000_000_000


def run(host: str, request: Request, connections: int, rate: float, seconds: float, scratch: Path) -> Seen:
    """One request again and again: only for those that need no id of their own."""
    body = scratch / "oha-body"
    body.write_text(request.text(_ID))
    options = [f"-c{connections}", f"-q{rate:.0f}", f"-z{max(1, round(seconds))}s", "--latency-correction"]
    headers = [word for name, value in request.headers.items() for word in ("-H", f"{name}: {value}")]
    data = ["-m", request.method] + ([] if request.body is None else ["-D", str(body)])
    quiet = ["--no-tui", "--output-format", "json", "--wait-ongoing-requests-after-deadline"]
    url = f"http://{host}{request.path}"
    told = json.loads(output_of([find("oha") or "oha", *quiet, *options, *headers, *data, url]))
    statuses, errors = told["statusCodeDistribution"], told["errorDistribution"]
    answered = sum(statuses.values())
    return Seen(
        command=" ".join(["oha", *options]),
        requests=answered,
        seconds=told["summary"]["total"],
        p50_ms=_milliseconds(told, "p50"),
        p99_ms=_milliseconds(told, "p99"),
        p999_ms=_milliseconds(told, "p99.9"),
        max_ms=told["summary"]["slowest"] * 1000,
        failed={"status": answered - statuses.get("200", 0), "error": sum(errors.values())},
        bytes=told["summary"]["totalData"],
    )


def _milliseconds(told: dict, share: str) -> float:
    seconds = told["latencyPercentiles"].get(share)
    return math.nan if seconds is None else seconds * 1000
