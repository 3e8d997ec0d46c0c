"""The frame of every script: arguments, an overall time limit, results, one line at the end, exit code.

Not for starting anything: workspace.py does.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable

from .gateway import NONE
from .paths import require_setup
from .workspace import Workspace


class TimeLimit(BaseException):
    """The script's overall time is over. Not an ``Exception``: nobody on the way handles it."""


class Results:
    """What was checked. Each is printed as soon as it is known."""

    def __init__(self) -> None:
        self.passed_count = 0
        self.failures: list[str] = []

    def passed(self, name: str) -> None:
        self.passed_count += 1
        print(f"ok    {name}", flush=True)

    def failed(self, name: str, why: str) -> None:
        self.failures.append(name)
        detail = "\n".join(f"      {line}" for line in why.splitlines())
        print(f"FAIL  {name}\n{detail}", flush=True)

    def check(self, name: str, problem: str | None) -> None:
        """Records a pass when there is no problem."""
        if problem:
            self.failed(name, problem)
        else:
            self.passed(name)


Body = Callable[[argparse.Namespace, Workspace, Results], None]


def run(
    name: str, description: str | None, body: Body, limit_s: int, arguments: Callable[..., None] | None = None
) -> None:
    """Parses the arguments, runs `body`, prints the summary and exits with 0 or 1."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gateway", required=True, metavar="BIN", help=f"the mcp-fleet binary, or '{NONE}' for direct runs"
    )
    parser.add_argument(
        "--timeout", type=int, default=limit_s, metavar="S", help="overall limit (default: %(default)s s)"
    )
    if arguments:
        arguments(parser)
    options = parser.parse_args()
    require_setup()

    signal.signal(signal.SIGALRM, _out_of_time)
    signal.signal(signal.SIGTERM, _asked_to_end)
    signal.alarm(options.timeout)
    started = time.monotonic()
    results = Results()
    with Workspace() as workspace:
        try:
            body(options, workspace, results)
        except TimeLimit:
            results.failed("time limit", f"not done after {options.timeout} s")
        except Exception:
            results.failed("run", traceback.format_exc())
        finally:
            signal.alarm(0)
        if results.failures and (tail := workspace.gateway_tail()):
            print(f"\nthe end of the gateway's log:\n{tail}")

    took = time.monotonic() - started
    print(f"\n{name}: {results.passed_count} passed, {len(results.failures)} failed")
    print(f"took {took:.0f} s")
    sys.exit(1 if results.failures or results.passed_count == 0 else 0)


def _out_of_time(*_: object) -> None:
    raise TimeLimit


def _asked_to_end(*_: object) -> None:
    sys.exit(1)
