"""Runs comparisons: every load on every subject, in turn."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from . import generators
from .fleet import Fleet
from .generators import Seen
from .mcp import Request, WrongAnswer
from .measure import Bench, Sample, refuse_odd_sizes
from .scenario import Comparison, Pace, Variant
from .subjects import Kind, Subject
from .words import say


@dataclass(frozen=True)
class Outcome:
    """The samples of one variant, by subject, in rounds."""

    scenario: Comparison
    variant: Variant
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    # Why there are none, or none of a peer.
    left_out: list[str] = field(default_factory=list)
    peers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.scenario.name} {self.variant.name}"


def compare(fleet: Fleet, bench: Bench, scenario: Comparison, pace: Pace) -> list[Outcome]:
    with fleet.gateway(scenario.servers) as gateway:
        subjects = [gateway, *fleet.others]
        outcomes = []
        for variant in scenario.chosen(pace):
            say(f"{scenario.name} {variant.name}: {variant.about}")
            outcomes.append(_outcome(fleet, bench, scenario, variant, pace, subjects))
        return outcomes


def turns(bench: Bench, loads: Mapping[Subject, Callable[[float], Seen]], pace: Pace) -> dict[str, list[Sample]]:
    """Loads of some seconds on several subjects, A B A B ...: what disturbs the machine disturbs all."""
    samples: dict[str, list[Sample]] = {subject.name: [] for subject in loads}
    if pace.warm_up:
        for load in loads.values():
            load(pace.warm_up)
    for _ in range(pace.rounds):
        for subject, load in loads.items():
            sample = bench.sample(subject, lambda: load(pace.seconds))
            samples[subject.name].append(sample)
            _say_sample(subject, sample)
    return samples


def _outcome(
    fleet: Fleet, bench: Bench, scenario: Comparison, variant: Variant, pace: Pace, subjects: list[Subject]
) -> Outcome:
    outcome = Outcome(
        scenario, variant, peers=tuple(subject.name for subject in subjects if subject.kind is Kind.PEER)
    )
    if generators.find(variant.needs) is None:
        outcome.left_out.append(f"{variant.needs} is not installed")
        say(f"  left out: {outcome.left_out[0]}")
        return outcome
    with ExitStack() as opened:
        asked = []
        for subject in filter(variant.takes, subjects):
            try:
                requests = opened.enter_context(variant.opened(subject))
                asked.append((subject, requests, _checked_size(variant, subject, requests, fleet.upstream.host)))
            except (WrongAnswer, OSError) as error:
                # Only ours has to be able to do everything.
                if subject.kind is not Kind.PEER:
                    raise
                outcome.left_out.append(f"{subject.name}: {str(error)[:200]}")
                say(f"  left out: {outcome.left_out[-1]}")
        _take_turns(bench, outcome, asked, pace)
    return outcome


def _checked_size(variant: Variant, subject: Subject, requests: list[Request], upstream: str) -> int:
    """Sends what will be timed, refuses wrong answers, returns the size of the right one."""
    for request in requests:
        answer = request.send(subject.host)
        try:
            variant.check(answer, upstream)
        except (WrongAnswer, ValueError, LookupError, TypeError, StopIteration) as error:
            raise WrongAnswer(f"{subject.name}, {variant.name}: {error!r}") from error
    return len(answer.body)


def _take_turns(
    bench: Bench, outcome: Outcome, asked: list[tuple[Subject, list[Request], int]], pace: Pace
) -> None:
    variant = outcome.variant
    if pace.warm_up:
        short = replace(pace, seconds=pace.warm_up, written_seconds=pace.warm_up)
        for subject, requests, _ in asked:
            variant.load(subject, requests, short, bench.scratch)
    for _ in range(min(pace.rounds, variant.most_rounds or pace.rounds)):
        for subject, requests, size in asked:
            sample = bench.sample(
                subject,
                lambda: variant.load(subject, requests, pace, bench.scratch),
                variant.calls_per_request(subject),
            )
            refuse_odd_sizes(sample, size)
            outcome.samples.setdefault(subject.name, []).append(sample)
            _say_sample(subject, sample)


def _say_sample(subject: Subject, sample: Sample) -> None:
    say(
        f"  {subject.name:12} {sample.throughput:8,.0f}/s  p99 {sample.seen.p99_ms:7.2f} ms  "
        f"CPU {sample.cpu_per_1000:.4f} s per 1,000  failed {sample.seen.failures}  others {sample.others:.2f} cores"
    )
