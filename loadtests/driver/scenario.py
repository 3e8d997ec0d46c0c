"""What a scenario is: a comparison under load, a situation that is played through,
or a program of its own."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .fleet import Fleet
from .generators import Seen
from .mcp import Answer, Request
from .measure import Bench, Sample
from .subjects import Subject

_T = TypeVar("_T")


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    name: str = "default"
    rounds: int = 3
    seconds: float = 4
    warm_up: float = 1
    # Of the command that says 30 s itself.
    written_seconds: float = 30

    @property
    def is_quick(self) -> bool:
        return self.name == "quick"

    @property
    def is_full(self) -> bool:
        return self.name == "full"

    def pick(self, quick: _T, usual: _T) -> _T:
        """A quick run looks whether things work; the others measure."""
        return quick if self.is_quick else usual


QUICK = Pace("quick", rounds=1, seconds=1, warm_up=0, written_seconds=2)
DEFAULT = Pace()
FULL = Pace("full", rounds=5, seconds=10)


@dataclass(frozen=True)
class Figure:
    """What is asked of the gateway, relative to the bare proxy of the same run."""

    cpu_at_most: float | None = None
    throughput_at_least: float | None = None
    # Milliseconds of p99 beyond the bare proxy's.
    added_p99_at_most: float | None = None
    # Throughput, relative to the fastest peer.
    peer_throughput_at_least: float | None = None


Requests = AbstractContextManager[list[Request]]
Load = Callable[[Subject, list[Request], Pace, Path], Seen]
# The pair that is always compared.
PAIR = ("gateway", "bare-proxy")


@dataclass(frozen=True)
class Variant:
    """One load that every subject gets in turn."""

    name: str
    about: str
    opened: Callable[[Subject], Requests]
    # Refuses a wrong answer; it is given the address of the upstream.
    check: Callable[[Answer, str], None]
    load: Load
    figure: Figure = field(default_factory=Figure)
    # Who takes part: everybody, or some by name.
    subjects: tuple[str, ...] | None = None
    # Calls in a request, where a gateway takes several at once.
    calls_per_request: Callable[[Subject], int] = lambda _: 1
    # A program without which there is no load.
    needs: str = "wrk"
    most_rounds: int | None = None

    def takes(self, subject: Subject) -> bool:
        return self.subjects is None or subject.name in self.subjects


@dataclass(frozen=True)
class Comparison:
    """Loads on one gateway with default settings and on what it is compared with."""

    name: str
    about: str
    variants: list[Variant]
    # Only with `--full`.
    more: list[Variant] = field(default_factory=list)
    servers: tuple[str, ...] = ("demo", "sessions")

    def chosen(self, pace: Pace) -> list[Variant]:
        return self.variants + (self.more if pace.is_full else [])


@dataclass(frozen=True)
class Fact:
    """Something a situation showed, and what it should have shown."""

    what: str
    value: str
    figure: str = "–"
    is_met: bool | None = None


@dataclass(frozen=True)
class Findings:
    """What a situation showed: facts, and a table where there are rows to compare."""

    facts: list[Fact]
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    # All there is of the loads, for programs.
    samples: dict[str, list[Sample]] = field(default_factory=dict)


@dataclass(frozen=True)
class Situation:
    """Something that happens to nodes of its own while they are asked."""

    name: str
    about: str
    play: Callable[[Fleet, Bench, Pace], Findings]


@dataclass(frozen=True)
class Program:
    """A scenario that takes long, writes results of its own, and is no part of a run that does not name it."""

    name: str
    about: str
    file: str


class LeftOut(RuntimeError):
    """A situation needs what this machine does not have: it is named, and the others go on."""


Scenario = Comparison | Situation | Program


def always(request: Callable[[Subject], Request]) -> Callable[[Subject], Requests]:
    """Requests that need no preparation."""
    return lambda subject: nullcontext([request(subject)])
