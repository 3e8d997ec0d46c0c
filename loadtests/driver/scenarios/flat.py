"""What is flat: a cost that does not grow with what it should not grow with."""

import time

from .. import machine
from ..measure import Sample
from ..scenario import Fact
from ..subjects import Subject
from ..tables import cpu, median, times

# What the caches of a processor add when more is in use is no growth.
_MOST = 1.25


def at_rest(subject: Subject, seconds: float) -> float:
    """CPU seconds per second of a subject that nobody asks anything."""
    before, began = machine.cpu_of(subject.pids).total, time.monotonic()
    time.sleep(seconds)
    return (machine.cpu_of(subject.pids).total - before) / (time.monotonic() - began)


def is_flat(what: str, samples: dict[str, list[Sample]], resting: dict[str, float] | None = None) -> Fact:
    """From the first to the last, as the median of the rounds, without what is used at rest."""

    def cost(name: str) -> float:
        rest = (resting or {}).get(name, 0.0)
        return median(samples[name], lambda sample: cpu(sample) - rest * sample.seen.seconds / sample.calls * 1000)

    first, *_, last = samples
    ratio = cost(last) / cost(first)
    return Fact(f"{what}, {last} to {first}", times(ratio), f"≤ {_MOST:g} ×", ratio <= _MOST)
