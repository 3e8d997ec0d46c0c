"""`h2load`: as many requests as come back, over HTTP/2 with prior knowledge."""

from pathlib import Path

from ..mcp import Request
from ..quantiles import quantile
from . import Seen, found, output_of

_ID = 1_000_000_000


def run(host: str, request: Request, connections: int, streams: int, seconds: float, scratch: Path) -> Seen:
    """One request again and again, as many at once as connections times streams.

    It sends the same bytes each time: only for requests that need no id of their own.
    """
    body, log = scratch / "h2load-body", scratch / "h2load-log"
    body.write_text(request.text(_ID))
    log.unlink(missing_ok=True)
    options = [f"-c{connections}", f"-m{streams}", f"-D{max(1, round(seconds))}", f"-t{min(2, connections)}"]
    headers = [word for name, value in request.headers.items() for word in ("-H", f"{name}: {value}")]
    data = [] if request.body is None else ["-d", str(body)]
    url = f"http://{host}{request.path}"
    output = output_of(["h2load", *options, "--log-file", str(log), *headers, *data, url])
    counted = found(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", output)
    lost = found(r"(\d+) failed, (\d+) errored, (\d+) timeout", output)
    latencies = _latencies(log)
    return Seen(
        command=" ".join(["h2load", *options]),
        requests=int(counted[1]),
        seconds=float(found(r"finished in ([\d.]+)s", output)[1]),
        p50_ms=quantile(latencies, 0.5),
        p99_ms=quantile(latencies, 0.99),
        p999_ms=quantile(latencies, 0.999),
        max_ms=quantile(latencies, 1),
        # "failed" has those that "errored" in it.
        failed={"failed": int(lost[1]), "timeout": int(lost[3])},
        bytes=int(found(r"\((\d+)\) data", output)[1]),
    )


def _latencies(log: Path) -> list[float]:
    """In order; a line is: when it began, status, how long it took, the last in microseconds."""
    lines = log.read_text().splitlines()
    return sorted(int(line.split("\t")[2]) / 1000 for line in lines)
