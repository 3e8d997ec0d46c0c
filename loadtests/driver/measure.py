"""One load on one subject, and what it cost."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import machine, redis
from .fleet import Fleet, Subject
from .generators import Seen
from .machine import Cpu
from .mcp import Request, WrongAnswer
from .scenarios import Known, Pace, Variant

# Of the answers' headers; what is more or less is another answer.
_MOST_HEADER_BYTES = 1024


@dataclass(frozen=True)
class Sample:
    """What one load showed."""

    seen: Seen
    cpu: Cpu
    # Cores kept busy by nothing of ours: how far to trust time and throughput.
    others: float
    memory_kib: dict[str, int]
    redis_commands: dict[str, int] | None
    upstream: dict[str, int]

    @property
    def throughput(self) -> float:
        return self.seen.requests / self.seen.seconds

    @property
    def cpu_per_1000(self) -> float:
        return self.cpu.total / self.seen.requests * 1000

    def as_json(self) -> dict:
        return {
            **asdict(self),
            "throughput": round(self.throughput, 1),
            "cpu_s_per_1000": round(self.cpu_per_1000, 6),
        }


class Bench:
    """Applies loads to the subjects of a running fleet."""

    def __init__(self, fleet: Fleet, scratch: Path):
        self._fleet = fleet
        self._scratch = scratch

    def check(self, variant: Variant, subject: Subject, requests: list[Request], known: Known) -> int:
        """Sends what will be timed, refuses wrong answers, returns the size of the right one."""
        for request in requests:
            answer = request.send(subject.host)
            try:
                variant.check(answer, known)
            except (WrongAnswer, ValueError, LookupError, TypeError) as error:
                raise WrongAnswer(f"{subject.name}, {variant.name}: {error!r}") from error
        return len(answer.body)

    def sample(self, variant: Variant, subject: Subject, requests: list[Request], pace: Pace) -> Sample:
        self._settle()
        before = self._snapshot(subject)
        seen = variant.load(subject.host, requests, pace, self._scratch)
        after = self._snapshot(subject)
        spent = after.cpu - before.cpu
        ours = after.ours - before.ours
        return Sample(
            seen,
            cpu=spent,
            others=round(max(0.0, after.machine - before.machine - ours) / seen.seconds, 2),
            memory_kib=machine.memory_of(subject.pid),
            redis_commands=None if before.redis is None else redis.between(before.redis, after.redis),
            upstream=redis.between(before.upstream, after.upstream),
        )

    def _settle(self) -> None:
        """Waits until the upstream has answered what the last generator left behind."""
        earlier, later = None, self._fleet.upstream_counts()
        while earlier != later:
            time.sleep(0.1)
            earlier, later = later, self._fleet.upstream_counts()

    def _snapshot(self, subject: Subject) -> "_Snapshot":
        fleet = self._fleet
        running = [*fleet.subjects, fleet.upstream]
        return _Snapshot(
            cpu=machine.cpu_of(subject.pid),
            ours=sum(machine.cpu_of(process.pid).total for process in running) + machine.cpu_of_generators(),
            machine=machine.cpu_of_machine(),
            redis=None if fleet.redis_port is None else redis.commands(fleet.redis_port),
            upstream=fleet.upstream_counts(),
        )


def refuse_odd_sizes(sample: Sample, size: int) -> None:
    """Answers of another size than the checked one were not the right ones."""
    seen = sample.seen
    if seen.bytes is None or not seen.requests:
        return
    mean = seen.bytes / seen.requests
    if not size * 0.98 <= mean <= size + _MOST_HEADER_BYTES:
        raise WrongAnswer(f"answers of {mean:.0f} bytes on average, the right one has {size}")


@dataclass(frozen=True)
class _Snapshot:
    cpu: Cpu
    ours: float
    machine: float
    redis: dict[str, int] | None
    upstream: dict[str, int]
