"""Results as a table for people and as JSON for programs."""

import json
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .measure import Sample
from .scenarios import Figure, Scenario, Variant

# How little a count may be, per request, to be nothing: a node says a word to its
# Redis now and then, whatever it is asked.
_NOTHING = 0.001


@dataclass(frozen=True)
class Outcome:
    """The samples of one variant, by subject, in rounds."""

    scenario: Scenario
    variant: Variant
    samples: dict[str, list[Sample]]

    def median(self, subject: str, value: Callable[[Sample], float]) -> float:
        return statistics.median(value(sample) for sample in self.samples[subject])

    def ratio(self, value: Callable[[Sample], float]) -> float:
        """Gateway to bare proxy: the median over rounds, since rounds differ more than pairs do."""
        pairs = zip(self.samples["gateway"], self.samples["bare-proxy"], strict=True)
        return statistics.median(value(gateway) / value(proxy) for gateway, proxy in pairs if value(proxy))


@dataclass(frozen=True)
class Report:
    command: str
    commit: str
    date: str
    machine: dict[str, str | int]
    pace: dict[str, float]
    idle: dict
    outcomes: list[Outcome] = field(default_factory=list)

    def write(self, directory: Path, stem: str) -> Path:
        directory.mkdir(exist_ok=True)
        (directory / f"{stem}.json").write_text(json.dumps(self._as_json(), indent=1) + "\n")
        table = directory / f"{stem}.md"
        table.write_text(self.markdown())
        return table

    def markdown(self) -> str:
        machine = self.machine
        lines = [
            f"# Load test of {self.date}",
            "",
            f"- command: `{self.command}`",
            f"- commit: {self.commit}",
            f"- machine: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, {machine['kernel']}",
            f"- rounds: {self.pace['rounds']} of {self.pace['seconds']:g} s per subject, in turn",
            f"- idle node: {self.idle['memory_kib']['resident'] / 1024:.1f} MiB resident, Redis commands in "
            f"{self.idle['seconds']:g} s: {_counts(self.idle['redis_commands'])}",
            "",
            "Medians over the rounds. CPU is the figure that counts; requests/s and latencies are those of a machine",
            "that the generator, the upstream and others (`others`: cores they kept busy) share.",
            "",
            "| scenario | subject | requests/s | p50 ms | p99 ms | CPU s per 1,000 | of it system | peak MiB | failed "
            "| Redis commands per request | upstream requests per request | others |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for outcome in self.outcomes:
            lines += [_row(outcome, subject) for subject in outcome.samples]
        lines += [
            "",
            "Gateway to bare proxy, median of the rounds' ratios (and their range):",
            "",
            "| scenario | CPU | throughput | figure | met |",
            "|---|--:|--:|---|---|",
        ]
        lines += [_comparison(outcome) for outcome in self.outcomes]
        return "\n".join(lines) + "\n"

    def _as_json(self) -> dict:
        return {
            "command": self.command,
            "commit": self.commit,
            "date": self.date,
            "machine": self.machine,
            "pace": self.pace,
            "idle": self.idle,
            "scenarios": [
                {
                    "scenario": outcome.scenario.name,
                    "variant": outcome.variant.name,
                    "about": f"{outcome.scenario.about}: {outcome.variant.about}",
                    "cpu_ratio": round(outcome.ratio(_cpu), 3),
                    "throughput_ratio": round(outcome.ratio(_throughput), 3),
                    "rounds": {
                        subject: [sample.as_json() for sample in samples]
                        for subject, samples in outcome.samples.items()
                    },
                }
                for outcome in self.outcomes
            ],
        }


def _row(outcome: Outcome, subject: str) -> str:
    def median(value: Callable[[Sample], float]) -> float:
        return outcome.median(subject, value)

    samples = outcome.samples[subject]
    requests = sum(sample.seen.requests for sample in samples)
    # Only the gateway has a Redis.
    commands = "–"
    if subject == "gateway" and samples[0].redis_commands is not None:
        commands = _redis_commands(samples, requests)
    asked = sum(_asked(sample) for sample in samples)
    cells = [
        _name(outcome),
        subject,
        f"{median(_throughput):,.0f}",
        f"{median(lambda sample: sample.seen.p50_ms):.2f}",
        f"{median(lambda sample: sample.seen.p99_ms):.2f}",
        f"{median(_cpu):.4f}",
        f"{median(lambda sample: sample.cpu.system / max(sample.cpu.total, 0.01)):.0%}",
        f"{samples[-1].memory_kib['peak'] / 1024:.1f}",
        f"{sum(sample.seen.failures for sample in samples)}",
        commands,
        _per_request(asked, requests),
        f"{median(lambda sample: sample.others):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _comparison(outcome: Outcome) -> str:
    figure = outcome.variant.figure
    cpu, throughput = outcome.ratio(_cpu), outcome.ratio(_throughput)
    cells = [
        _name(outcome),
        f"{cpu:.2f} × ({_range(outcome, _cpu)})",
        f"{throughput:.2f} × ({_range(outcome, _throughput)})",
        _say(figure),
        _met(figure, cpu, throughput),
    ]
    return f"| {' | '.join(cells)} |"


def _range(outcome: Outcome, value: Callable[[Sample], float]) -> str:
    pairs = zip(outcome.samples["gateway"], outcome.samples["bare-proxy"], strict=True)
    ratios = [value(gateway) / value(proxy) for gateway, proxy in pairs if value(proxy)]
    return f"{min(ratios):.2f}–{max(ratios):.2f}"


def _say(figure: Figure) -> str:
    wanted = []
    if figure.cpu_at_most is not None:
        wanted.append(f"CPU ≤ {figure.cpu_at_most:g} ×")
    if figure.throughput_at_least is not None:
        wanted.append(f"throughput ≥ {figure.throughput_at_least:g} ×")
    return ", ".join(wanted) or "–"


def _met(figure: Figure, cpu: float, throughput: float) -> str:
    if figure == Figure():
        return "–"
    cpu_is_met = figure.cpu_at_most is None or cpu <= figure.cpu_at_most
    throughput_is_met = figure.throughput_at_least is None or throughput >= figure.throughput_at_least
    return "yes" if cpu_is_met and throughput_is_met else "no"


def _per_request(count: int, requests: int) -> str:
    per = count / max(requests, 1)
    return f"0 ({count} in {requests:,})" if per < _NOTHING else f"{per:.3f}"


def _redis_commands(samples: list[Sample], requests: int) -> str:
    """Per request; where that is nothing, what was said all the same."""
    ran = Counter()
    for sample in samples:
        ran.update(sample.redis_commands)
    per = ran.total() / max(requests, 1)
    return f"0 ({_counts(ran)})" if per < _NOTHING else f"{per:.3f} ({_counts(ran)})"


def _counts(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "no Redis"
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _asked(sample: Sample) -> int:
    return sum(sample.upstream.get(kind, 0) for kind in ("tools/call", "tools/list", "plain lists", "others"))


def _cpu(sample: Sample) -> float:
    return sample.cpu_per_1000


def _throughput(sample: Sample) -> float:
    return sample.throughput


def _name(outcome: Outcome) -> str:
    return f"{outcome.scenario.name} {outcome.variant.name}"
