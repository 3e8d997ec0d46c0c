"""One part of the tests that has an engine of its own: how it begins, what it shows, how it ends.

Not for what is expected: the parts know.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from engine import CannotStart, Engine, require_root, skipped_by
from images import REPOSITORY


class TimeLimit(BaseException):
    """The part's overall time is over. Not an ``Exception``: nobody on the way handles it."""


class Checks:
    """What has been shown so far. Each is printed as soon as it is known; the first that fails ends the run."""

    def __init__(self) -> None:
        self.count = 0

    def require(self, claim: str, is_so: bool, otherwise: object = "") -> None:
        if not is_so:
            raise AssertionError(f"{claim}: no\n{otherwise}")
        self.count += 1
        print(f"ok    {claim}", flush=True)


def run(
    name: str,
    limit_s: int,
    prepare: Callable[[Path], None],
    show: Callable[[Engine, Path, Checks], None],
) -> int:
    """Prepares what takes the network, starts the engine without it, and shows; the exit code."""
    if os.environ.get(skipped_by(name)):
        print(f"{name}: left out, as {skipped_by(name)} says")
        return 0
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.alarm(limit_s)
    begun = time.monotonic()
    checks = Checks()
    is_good = False
    cache = Path(os.environ.get("MCP_FLEET_TEST_DIR") or REPOSITORY / ".test").resolve() / name
    try:
        require_root(name)
        cache.mkdir(parents=True, exist_ok=True)
        prepare(cache)
        with Engine(name, cache) as engine:
            show(engine, cache, checks)
        is_good = True
    except CannotStart as error:
        print(f"FAIL  {error}")
    except TimeLimit:
        print(f"FAIL  not done after {limit_s} s")
    except AssertionError as error:
        print(f"FAIL  {error}")
    except Exception:
        traceback.print_exc(file=sys.stdout)
    finally:
        signal.alarm(0)
    print(f"\n{name}: {checks.count} passed, {0 if is_good else 1} failed, took {time.monotonic() - begun:.0f} s")
    return 0 if is_good else 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(text: str) -> None:
    print(f"\n-- {text}", flush=True)


def _out_of_time(*_: object) -> None:
    raise TimeLimit
