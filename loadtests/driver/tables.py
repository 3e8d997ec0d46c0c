"""Samples as rows of Markdown tables."""

import math
import statistics
from collections.abc import Callable, Iterable

from .comparisons import Outcome
from .measure import Sample
from .scenario import Fact, Figure

# How little a count may be, per request, to be nothing.
_NOTHING = 0.001
# Columns of words.
_WORDS = ("figure", "met", "value", "in all")

SAMPLE_COLUMNS = (
    "requests/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU s per 1,000",
    "peak MiB",
    "failed",
    "Redis commands/s",
    "upstream requests per request",
    "upstream connections (opened)",
    "others",
)
RATIO_COLUMNS = ("CPU", "throughput", "added p99 ms", "CPU of nginx", "fastest peer", "figure", "met")


def table(first: tuple[str, ...], columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Names to the left, figures to the right."""
    marks = ["---" if column in (*first, *_WORDS) else "--:" for column in (*first, *columns)]
    lines = [line(*first, *columns), line(*marks)]
    return lines + [line(*row) for row in rows]


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def sample_cells(samples: list[Sample]) -> tuple[str, ...]:
    """Medians over rounds, sums of counts."""
    calls = sum(sample.calls for sample in samples)
    opened = sum(sample.upstream.get("connections", 0) for sample in samples)
    return (
        f"{median(samples, throughput):,.0f}",
        _fixed(median(samples, lambda sample: sample.seen.p50_ms), 2),
        _fixed(median(samples, lambda sample: sample.seen.p99_ms), 2),
        _fixed(median(samples, _p999), 2),
        _fixed(median(samples, cpu), 4),
        f"{max(sample.memory_kib['peak'] for sample in samples) / 1024:.1f}" if _is_here(samples) else "–",
        f"{sum(sample.seen.failures for sample in samples)}",
        _redis_commands(samples),
        _per_request(sum(map(_asked, samples)), calls),
        f"{max(sample.upstream_connections for sample in samples)} ({opened})" if _is_here(samples) else "–",
        f"{median(samples, lambda sample: sample.others):.2f}",
    )


def ratio_cells(outcome: Outcome) -> tuple[str, ...]:
    """The gateway against the bare proxy and the others of the same rounds."""
    by_name = outcome.samples
    ours, floor = by_name.get("gateway", []), by_name.get("bare-proxy", [])
    figure = outcome.variant.figure
    added = _difference(ours, floor)
    fastest = max((median(by_name[peer], throughput) for peer in outcome.peers if peer in by_name), default=math.nan)
    against_peer = median(ours, throughput) / fastest if fastest else math.nan
    ratios = (_ratio(ours, floor, cpu), _ratio(ours, floor, throughput), added, against_peer)
    return (
        _with_range(ours, floor, cpu),
        _with_range(ours, floor, throughput),
        _fixed(added, 2),
        times(_ratio(ours, by_name.get("nginx", []), cpu)),
        times(against_peer),
        _say(figure),
        _met(figure, *ratios),
    )


def fact_cells(fact: Fact) -> tuple[str, ...]:
    met = {None: "–", True: "yes", False: "no"}[fact.is_met]
    return (fact.what, fact.value, fact.figure, met)


def median(samples: list[Sample], value: Callable[[Sample], float]) -> float:
    return statistics.median(map(value, samples)) if samples else math.nan


def cpu(sample: Sample) -> float:
    return sample.cpu_per_1000


def throughput(sample: Sample) -> float:
    return sample.throughput


def counts(commands: dict[str, int] | None) -> str:
    if commands is None:
        return "no Redis"
    return ", ".join(f"{count} {name}" for name, count in commands.items()) or "none"


def _ratios(ours: list[Sample], others: list[Sample], value: Callable[[Sample], float]) -> list[float]:
    """Round by round: rounds differ more than the subjects of one do."""
    return [value(our) / value(other) for our, other in zip(ours, others) if value(other)]


def _ratio(ours: list[Sample], others: list[Sample], value: Callable[[Sample], float]) -> float:
    ratios = _ratios(ours, others, value)
    return statistics.median(ratios) if ratios else math.nan


def _difference(ours: list[Sample], floor: list[Sample]) -> float:
    pairs = [our.seen.p99_ms - other.seen.p99_ms for our, other in zip(ours, floor)]
    return statistics.median(pairs) if pairs else math.nan


def _with_range(ours: list[Sample], floor: list[Sample], value: Callable[[Sample], float]) -> str:
    ratios = _ratios(ours, floor, value)
    if not ratios:
        return "–"
    return f"{statistics.median(ratios):.2f} × ({min(ratios):.2f}–{max(ratios):.2f})"


def _say(figure: Figure) -> str:
    wanted = {
        "CPU ≤ {:g} ×": figure.cpu_at_most,
        "throughput ≥ {:g} ×": figure.throughput_at_least,
        "added p99 < {:g} ms": figure.added_p99_at_most,
        "fastest peer ≥ {:g} ×": figure.peer_throughput_at_least,
    }
    return ", ".join(text.format(value) for text, value in wanted.items() if value is not None) or "–"


def _met(figure: Figure, cpu: float, throughput: float, added: float, against_peer: float) -> str:
    """What could not be seen (no peer, no process) is neither met nor missed."""
    seen = [
        (figure.cpu_at_most, cpu, cpu <= (figure.cpu_at_most or 0)),
        (figure.throughput_at_least, throughput, throughput >= (figure.throughput_at_least or 0)),
        (figure.added_p99_at_most, added, added < (figure.added_p99_at_most or 0)),
        (figure.peer_throughput_at_least, against_peer, against_peer >= (figure.peer_throughput_at_least or 0)),
    ]
    verdicts = [is_met for wanted, value, is_met in seen if wanted is not None and not math.isnan(value)]
    return "–" if not verdicts else "yes" if all(verdicts) else "no"


def _per_request(count: int, requests: int) -> str:
    per = count / max(requests, 1)
    return f"0 ({count} in {requests:,})" if per < _NOTHING else f"{per:.3f}"


def _redis_commands(samples: list[Sample]) -> str:
    """Per second: a node says a word to its Redis now and then, whatever it is asked."""
    if any(sample.redis_commands is None for sample in samples):
        return "–"
    ran = sum(sum(sample.redis_commands.values()) for sample in samples if sample.redis_commands)
    return f"{ran / sum(sample.seen.seconds for sample in samples):.1f}"


def _asked(sample: Sample) -> int:
    return sum(sample.upstream.get(kind, 0) for kind in ("tools/call", "tools/list", "plain lists", "others"))


def _p999(sample: Sample) -> float:
    return math.nan if sample.seen.p999_ms is None else sample.seen.p999_ms


def _is_here(samples: list[Sample]) -> bool:
    return any(sample.memory_kib["peak"] for sample in samples)


def _fixed(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def times(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f} ×"
