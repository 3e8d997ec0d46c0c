"""One load on one subject, and what it cost."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from . import machine, redis
from .fleet import Fleet
from .generators import Seen
from .machine import Cpu
from .mcp import WrongAnswer
from .subjects import Subject

# Of the answers' headers; what is more or less is another answer.
_MOST_HEADER_BYTES = 1024


@dataclass(frozen=True)
class Sample:
    """What one load showed."""

    seen: Seen
    # Requests, or the calls in them where a request takes several.
    calls: int
    cpu: Cpu
    # Cores kept busy by nothing of ours: how far to trust time and throughput.
    others: float
    memory_kib: dict[str, int]
    redis_commands: dict[str, int] | None
    upstream: dict[str, int]
    # Connections to the upstream that it held when the load ended.
    upstream_connections: int

    @property
    def throughput(self) -> float:
        return self.calls / self.seen.seconds

    @property
    def cpu_per_1000(self) -> float:
        """Not a number for a subject whose processes are elsewhere, and for no calls."""
        return self.cpu.total / self.calls * 1000 if self.calls and self.memory_kib["peak"] else math.nan

    def as_json(self) -> dict:
        return {
            **asdict(self),
            "throughput": round(self.throughput, 1),
            "cpu_s_per_1000": None if math.isnan(self.cpu_per_1000) else round(self.cpu_per_1000, 6),
        }


class Bench:
    """Applies loads to subjects before the upstream of a fleet."""

    def __init__(self, fleet: Fleet, scratch: Path):
        self._fleet = fleet
        self.scratch = scratch

    def sample(self, subject: Subject, load: Callable[[], Seen], calls_per_request: int = 1) -> Sample:
        """Runs a load; its CPU, memory and Redis are those of the subject."""
        self._settle()
        machine.forget_peak(subject.pids)
        before = self._snapshot(subject)
        seen = load()
        after = self._snapshot(subject)
        ours = after.ours - before.ours
        port = int(self._fleet.upstream.host.rpartition(":")[2])
        return Sample(
            seen,
            calls=seen.requests * calls_per_request,
            cpu=after.cpu - before.cpu,
            others=round(max(0.0, after.machine - before.machine - ours) / seen.seconds, 2),
            memory_kib=machine.memory_of_all(subject.pids),
            redis_commands=redis.between(before.redis, after.redis) if before.redis and after.redis else None,
            upstream=redis.between(before.upstream, after.upstream),
            upstream_connections=machine.connections_to(subject.pids, port),
        )

    def _settle(self) -> None:
        """Waits until the upstream has answered what the last generator left behind."""
        earlier, later = None, self._asked()
        while earlier != later:
            time.sleep(0.1)
            earlier, later = later, self._asked()

    def _asked(self) -> dict[str, int]:
        """Probes go on whatever is asked."""
        return {name: count for name, count in self._fleet.upstream_counts().items() if name != "probes"}

    def _snapshot(self, subject: Subject) -> "_Snapshot":
        fleet = self._fleet
        pids = {*subject.pids, *fleet.upstream.pids}
        for other in fleet.others:
            pids.update(other.pids)
        return _Snapshot(
            cpu=machine.cpu_of(subject.pids),
            ours=machine.cpu_of(pids).total + machine.cpu_of_generators(),
            machine=machine.cpu_of_machine(),
            redis=None if subject.redis_port is None else redis.commands(subject.redis_port),
            upstream=fleet.upstream_counts(),
        )


def refuse_odd_sizes(sample: Sample, size: int) -> None:
    """Answers of another size than the checked one were not the right ones."""
    seen = sample.seen
    if seen.bytes is None or not seen.requests:
        return
    mean = seen.bytes / seen.requests
    # Generators count what had come of the last answers when their time was up.
    if not size * 0.95 <= mean <= size * 1.5 + _MOST_HEADER_BYTES:
        raise WrongAnswer(f"answers of {mean:.0f} bytes on average, the right one has {size}")


@dataclass(frozen=True)
class _Snapshot:
    cpu: Cpu
    ours: float
    machine: float
    redis: dict[str, int] | None
    upstream: dict[str, int]
