#!/usr/bin/env python3
"""Nothing that the official conformance suite finds right in a server may be lost through the gateway.

Runs the suite twice, against the fixture directly and through the gateway in front of a fresh fixture,
and compares every single check: a scenario can pass with fewer checks. Fails naming each check that
succeeded directly and did not through the gateway, and each that failed only through the gateway.

The direct results are kept in the cache directory until the fixture or the suite changes. With
--gateway none only the direct half is run, afresh, and must succeed in everything that is scored.

    conformance.py --gateway BIN [--only VERSION-OR-SCENARIO ...] [--save DIR]

Not for the gateway in the client's role (conformance_client.py), nor to be run beside a build: the
suite gives each scenario 30 s.
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import servers, suite
from harness.gateway import NONE, routes
from harness.paths import CONFORMANCE, HERE, NODE
from harness.script import Results, run
from harness.workspace import Workspace

LIMIT_S = 600
SUITE_S = 180


@dataclass(frozen=True)
class Requirements:
    """What one protocol version is held to. `least_checks`: fewer successes mean a broken baseline."""

    version: str
    arguments: tuple[str, ...]
    least_checks: int
    unscored: tuple[str, ...] = ()


REQUIREMENTS = [
    Requirements("2025-06-18", ("--suite", "all", "--spec-version", "2025-06-18"), 56),
    Requirements("2025-11-25", ("--requirements", "2025-11-25"), 84),
    # The fixture does not do the tasks extension, which is not scored.
    Requirements("2026-07-28", ("--requirements", "2026-07-28"), 160, unscored=("tasks-*",)),
]


def judge(url: str, arguments: tuple[str, ...], output: Path) -> suite.Checks:
    """Runs the suite against `url`. Its exit code says nothing that the checks do not."""
    command: list[str | Path] = [NODE, CONFORMANCE, "server", "--url", url, *arguments, "-o", output]
    output.mkdir(parents=True)
    log = output / "suite.log"
    with log.open("wb") as sink:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=SUITE_S)
        except subprocess.TimeoutExpired:
            print(f"      the suite was ended after {SUITE_S} s; what it had found by then counts")
    found = suite.read(output)
    if not found:
        raise RuntimeError(f"the suite wrote no checks\n{log.read_text()[-2000:]}")
    return found


def _local(url: str) -> str:
    """The suite's rebinding scenario wants a host name, not an address."""
    return url.replace("127.0.0.1", "localhost")


def run_direct(workspace: Workspace, requirements: Requirements) -> suite.Checks:
    name = f"fixture-direct-{requirements.version}"
    checks = judge(_local(servers.fixture(workspace, name=name)), requirements.arguments, workspace.directory / name)
    workspace.stop(name)
    return checks


def baseline(workspace: Workspace, requirements: Requirements) -> suite.Checks:
    return suite.cached(
        requirements.version,
        [*sorted((HERE / "fixture").glob("*.mjs")), HERE / "package-lock.json"],
        requirements,
        lambda: run_direct(workspace, requirements),
        lambda checks: not baseline_problem(requirements, checks),
    )


def baseline_problem(requirements: Requirements, checks: suite.Checks) -> str | None:
    """Why these direct results are not worth comparing with, if so."""
    count = suite.successes(checks)
    if count < requirements.least_checks:
        return f"only {count} checks succeeded directly, expected at least {requirements.least_checks}"
    return None


def is_scored(requirements: Requirements, scenario: str) -> bool:
    return not any(fnmatch.fnmatch(scenario, pattern) for pattern in requirements.unscored)


def check_direct(requirements: Requirements, checks: suite.Checks, results: Results) -> None:
    results.check(f"{requirements.version} baseline", baseline_problem(requirements, checks))
    for scenario, found in sorted(checks.items()):
        if is_scored(requirements, scenario):
            results.check(f"{requirements.version} {scenario}", suite.bad(found))


def check_through(
    requirements: Requirements,
    scenarios: list[str] | None,
    options: argparse.Namespace,
    workspace: Workspace,
    results: Results,
) -> None:
    version = requirements.version
    direct = baseline(workspace, requirements)
    results.check(f"{version} baseline: {suite.successes(direct)} checks", baseline_problem(requirements, direct))

    url = servers.fixture(workspace, name=f"fixture-{version}")
    way = routes(workspace, options.gateway, {"fixture": url}, name=f"gateway-{version}")
    output = workspace.directory / f"through-{version}"
    through: suite.Checks = {}
    if scenarios is None:
        through = judge(way.servers["fixture"], requirements.arguments, output)
    for scenario in scenarios or []:
        arguments = ("--scenario", scenario, "--spec-version", version)
        through |= judge(way.servers["fixture"], arguments, output / scenario)
    workspace.stop(f"gateway-{version}")
    workspace.stop(f"fixture-{version}")

    for scenario in sorted(direct if scenarios is None else scenarios):
        problem = suite.lost(direct[scenario], through.get(scenario, []))
        results.check(f"{version} {scenario} ({len(direct[scenario])} checks)", problem)
    if scenarios is None:
        counts = f"{suite.successes(direct)} checks directly, {suite.successes(through)} through the gateway"
        print(f"      {version}: {counts}")
    if options.save:
        shutil.copytree(output, options.save / version, dirs_exist_ok=True)


def body(options: argparse.Namespace, workspace: Workspace, results: Results) -> None:
    versions = [requirements.version for requirements in REQUIREMENTS]
    patterns = [pattern for pattern in options.only if pattern not in versions]
    for requirements in REQUIREMENTS:
        if set(options.only) & set(versions) and requirements.version not in options.only:
            continue
        if options.gateway == NONE:
            check_direct(requirements, run_direct(workspace, requirements), results)
            continue
        scenarios = None
        if patterns:
            known = baseline(workspace, requirements)
            scenarios = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
            if not scenarios:
                continue
        check_through(requirements, scenarios, options, workspace, results)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="WHAT", help="versions, scenario names or patterns")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep the suite's own results of the gateway runs")


if __name__ == "__main__":
    run("conformance", __doc__, body, LIMIT_S, arguments)
