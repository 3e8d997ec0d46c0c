"""`ab`: a new connection per request, as the predecessor's documentation has it."""

import re

from . import Seen, found, output_of


def as_written(host: str, path: str) -> Seen:
    options = ["-n", "1000", "-c", "50"]
    output = output_of(["ab", *options, f"http://{host}{path}"])
    statuses = re.search(r"Non-2xx responses:\s+(\d+)", output)
    return Seen(
        command=f"ab {' '.join(options)} 'http://HOST{path}'",
        requests=int(found(r"Complete requests:\s+(\d+)", output)[1]),
        seconds=float(found(r"Time taken for tests:\s+([\d.]+)", output)[1]),
        p50_ms=float(found(r"50%\s+(\d+)", output)[1]),
        p99_ms=float(found(r"99%\s+(\d+)", output)[1]),
        failed={
            "failed": int(found(r"Failed requests:\s+(\d+)", output)[1]),
            "status": int(statuses[1]) if statuses else 0,
        },
    )
