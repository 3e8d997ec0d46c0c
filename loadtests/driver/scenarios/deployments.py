"""Twenty deployments at once against an engine that is slow, and what others meanwhile wait for.

What happens is in `deploying.py`: the engine is one of the test's own, in a network of its own, which takes a process.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..deploying import DEPLOYMENTS, NODES
from ..fleet import HERE, ROOT, Fleet
from ..measure import Bench
from ..quantiles import brief, quantile
from ..scenario import Fact, Findings, LeftOut, Pace, Situation

_DELAY_S = 0.3
_P99_MS = 50.0


def _play(fleet: Fleet, bench: Bench, pace: Pace) -> Findings:
    told = {
        "binaries": {name: str(Path(path).resolve()) for name, path in fleet.binaries.items()},
        "scratch": tempfile.mkdtemp(dir=bench.scratch),
        "cache": str(Path(os.environ.get("MCP_FLEET_TEST_DIR") or ROOT / ".test").resolve() / "loadtests"),
        "delay": _DELAY_S,
        "seconds": pace.pick(3, 20),
    }
    done = subprocess.run(
        [sys.executable, "-m", "driver.deploying", json.dumps(told)], cwd=HERE, capture_output=True, text=True, timeout=900
    )
    if done.returncode != 0:
        raise RuntimeError(f"the deployments did not come about\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    if why := seen.get("left_out"):
        raise LeftOut(why)
    took = seen["took"]
    facts = [
        Fact("deployments taken", str(seen["taken"]), str(DEPLOYMENTS), seen["taken"] == DEPLOYMENTS),
        Fact("until all are ready", "not in time" if took is None else f"{took:.1f} s"),
        Fact("first calls answered", f"{seen['answered']}, through each node", str(seen["asked"]), seen["answered"] == seen["asked"]),
        Fact(
            "containers",
            f"{seen['containers']} of {seen['servers']} servers",
            "one per replica",
            seen["containers"] == seen["servers"] == DEPLOYMENTS,
        ),
    ]
    for kind, what in (("health", "`/healthz`"), ("calls", "calls of another server")):
        for phase, when in (("idle", "before"), ("busy", "meanwhile")):
            latencies = sorted(seen[phase][kind])
            is_met = quantile(latencies, 0.99) < _P99_MS if phase == "busy" else None
            figure = f"p99 < {_P99_MS:g}" if phase == "busy" else "–"
            facts.append(Fact(f"{what} {when} ({len(latencies):,}): p50 / p99 / max ms", brief(latencies), figure, is_met))
    wrong = len(seen["idle"]["wrong"]) + len(seen["busy"]["wrong"])
    facts.append(Fact("wrong answers among these", str(wrong), "0", wrong == 0))
    return Findings(facts)


SCENARIO = Situation(
    "deployments",
    f"{DEPLOYMENTS} deployments at once through {NODES} nodes; each operation of the engine takes {_DELAY_S:g} s longer",
    _play,
)
