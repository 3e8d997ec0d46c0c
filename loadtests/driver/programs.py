"""Runs the scenarios that are programs of their own."""

import argparse
import subprocess

from .fleet import HERE
from .scenario import Program
from .words import say

# Of what was typed: places on this machine.
_PLACES = ("--binary", "--logs")
# Those that take a gateway that is already built.
_TAKE_BINARY = ("soak", "redis-cost")
# What shows that they work.
_QUICK = {
    "soak": ["--minutes", "3", "--kill-every", "20", "--restart-redis-every", "30"],
    "redis-cost": ["--nodes", "1", "--servers", "1", "--seconds", "10"],
}


def run(programs: list[Program], arguments: argparse.Namespace) -> int:
    """One after the other; returns the exit code of the first that fails."""
    for program in programs:
        command = [str(HERE / program.file)]
        if arguments.quick:
            command += _QUICK.get(program.file, [])
        if arguments.binary and program.file in _TAKE_BINARY:
            command += ["--binary", arguments.binary]
        say(f"loadtests/{program.file}: {program.about}")
        if code := subprocess.run(command, check=False).returncode:
            return code
    return 0


def shown(words: list[str]) -> list[str]:
    """What was typed, without places on this machine."""
    kept = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _PLACES:
            skip = True
        elif not word.startswith(tuple(f"{place}=" for place in _PLACES)):
            kept.append(word)
    return kept
