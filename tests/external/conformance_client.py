#!/usr/bin/env python3
"""The gateway in the client's role: what it sends upstream satisfies the suite's judge of clients.

For each scenario the suite starts a mock server and runs a command with its URL; the command is
harness/behind_gateway.py, which puts the gateway between the mock server and a reference client. A
scenario passes when the judge finds nothing wrong and no check is lost that succeeds when the same
client talks to the judge directly. With --gateway none only the direct half is run, afresh.

Each scenario is run twice: with a client of the judge's own era, and with one of the other era. The
second is the harder: what the judge then sees was made by the gateway, not by the client.

    conformance_client.py --gateway BIN [--only PATTERN ...]

Not for the gateway in the server's role: conformance.py.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shlex
import subprocess
import sys
from pathlib import Path

from harness import suite
from harness.gateway import NONE
from harness.paths import CONFORMANCE, HERE, NODE
from harness.script import Results, run
from harness.workspace import Workspace

LIMIT_S = 600
SCENARIO_S = 60
COMMAND = shlex.join([sys.executable, str(HERE / "harness" / "behind_gateway.py")])

SCENARIOS = [
    *(
        ("2025-11-25", scenario)
        for scenario in (
            "initialize",
            "tools_call",
            "elicitation-sep1034-client-defaults",
            "sse-retry",
            "json-schema-2020-12-preservation",
        )
    ),
    *(
        ("2026-07-28", scenario)
        for scenario in (
            "tools_call",
            "request-metadata",
            "sep-2322-client-request-state",
            "http-standard-headers",
            "http-custom-headers",
            "http-invalid-tool-headers",
            "json-schema-ref-no-deref",
            "json-schema-2020-12-preservation",
        )
    ),
]


def era(version: str) -> str:
    return "modern" if version >= "2026" else "legacy"


def judge(
    workspace: Workspace, binary: str, version: str, scenario: str, client_era: str
) -> tuple[list[suite.Check], str]:
    """The judge's checks, and what the client said."""
    output = workspace.directory / f"{scenario}-{version}-{client_era}-{'direct' if binary == NONE else 'through'}"
    output.mkdir()
    command: list[str | Path] = [NODE, CONFORMANCE, "client", "--command", COMMAND, "--scenario", scenario]
    command += ["--spec-version", version, "-o", output]
    log = output / "suite.log"
    with log.open("wb") as sink:
        binary = binary if binary == NONE else str(Path(binary).resolve())
        env = {**os.environ, "MCP_FLEET_BINARY": binary, "JUDGED_ERA": client_era}
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, timeout=SCENARIO_S)
    checks = [check for found in suite.read(output).values() for check in found]
    said = "".join(path.read_text(errors="replace") for path in sorted(output.glob("**/std*.txt")))
    return checks, said or log.read_text(errors="replace")


def baseline(workspace: Workspace, version: str, scenario: str) -> list[suite.Check]:
    depends_on = [HERE / "clients" / "judged.mjs", HERE / "package-lock.json"]
    found = suite.cached(
        f"client-{version}-{scenario}",
        depends_on,
        (version, scenario),
        lambda: {scenario: judge(workspace, NONE, version, scenario, era(version))[0]},
        lambda checks: suite.successes(checks) > 0 and not suite.bad(checks[scenario]),
    )
    return found[scenario]


def problem(direct: list[suite.Check], checks: list[suite.Check]) -> str:
    if not suite.successes({"": checks}):
        return "no check succeeded"
    return suite.bad(checks) or suite.lost(direct, checks)


def body(options: argparse.Namespace, workspace: Workspace, results: Results) -> None:
    for version, scenario in SCENARIOS:
        for client_era in ("legacy", "modern"):
            is_same_era = client_era == era(version)
            name = f"{version} {scenario}" + ("" if is_same_era else f" from a {client_era} client")
            if options.only and not any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in options.only):
                continue
            if options.gateway == NONE and not is_same_era:
                continue
            direct = [] if options.gateway == NONE else baseline(workspace, version, scenario)
            checks, said = judge(workspace, options.gateway, version, scenario, client_era)
            found = problem(direct, checks)
            count = suite.successes({"": checks})
            results.check(f"{name} ({count} checks)", f"{found}\n{said[-3000:]}" if found else None)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="parts of names as printed")


if __name__ == "__main__":
    run("conformance-client", __doc__, body, LIMIT_S, arguments)
