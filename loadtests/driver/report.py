"""Results as tables for people and as JSON for programs."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .comparisons import Outcome
from .scenario import Findings, Situation
from .tables import RATIO_COLUMNS, SAMPLE_COLUMNS, counts, fact_cells, ratio_cells, sample_cells, table


@dataclass(frozen=True)
class Report:
    command: str
    commit: str
    date: str
    machine: dict[str, str | int]
    pace: dict[str, str | float]
    idle: dict
    outcomes: list[Outcome] = field(default_factory=list)
    findings: list[tuple[Situation, Findings]] = field(default_factory=list)
    # Scenarios of which nothing was seen, and why.
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def write(self, directory: Path, stem: str) -> Path:
        directory.mkdir(exist_ok=True)
        (directory / f"{stem}.json").write_text(json.dumps(self._as_json(), indent=1) + "\n")
        result = directory / f"{stem}.md"
        result.write_text(self.markdown())
        return result

    def markdown(self) -> str:
        lines = self._head()
        if any(outcome.samples for outcome in self.outcomes):
            lines += self._comparisons()
        for situation, findings in self.findings:
            lines += _situation(situation, findings)
        missing = [*self.left_out]
        missing += [(outcome.name, reason) for outcome in self.outcomes for reason in outcome.left_out]
        if missing:
            lines += ["", "## Left out", ""]
            lines += [f"- {name}: {reason}" for name, reason in missing]
        return "\n".join(lines) + "\n"

    def _head(self) -> list[str]:
        machine, commands = self.machine, self.idle["redis_commands"]
        return [
            f"# Load test of {self.date}",
            "",
            f"- command: `{self.command}`",
            f"- commit: {self.commit}",
            f"- machine: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, {machine['kernel']}",
            f"- rounds: {self.pace['rounds']} of {self.pace['seconds']:g} s per subject, in turn",
            f"- idle node: {self.idle['memory_kib']['resident'] / 1024:.1f} MiB resident, "
            f"{sum(commands.values()) / self.idle['seconds']:.1f} Redis commands/s ({counts(commands)})",
        ]

    def _comparisons(self) -> list[str]:
        rows = [
            (outcome.name, subject, *sample_cells(samples))
            for outcome in self.outcomes
            for subject, samples in outcome.samples.items()
        ]
        pairs = [(outcome.name, *ratio_cells(outcome)) for outcome in self.outcomes if outcome.samples]
        return [
            "",
            "## Under load",
            "",
            "Medians over the rounds. CPU is the figure that counts; requests/s and latencies are those of a machine",
            "that the generator, the upstream and others (`others`: cores they kept busy) share.",
            "",
            *table(("scenario", "subject"), SAMPLE_COLUMNS, rows),
            "",
            "Gateway to bare proxy, median of the rounds' ratios (and their range); beside it the gateway's CPU to that",
            "of nginx, and its throughput to that of the fastest peer:",
            "",
            *table(("scenario",), RATIO_COLUMNS, pairs),
        ]

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
                    "left_out": outcome.left_out,
                    "rounds": {
                        subject: [sample.as_json() for sample in samples]
                        for subject, samples in outcome.samples.items()
                    },
                }
                for outcome in self.outcomes
            ],
            "situations": [
                {"scenario": situation.name, "about": situation.about, **_findings_as_json(findings)}
                for situation, findings in self.findings
            ],
            "left_out": dict(self.left_out),
        }


def _situation(situation: Situation, findings: Findings) -> list[str]:
    lines = ["", f"## {situation.name}", "", f"{situation.about[0].upper()}{situation.about[1:]}."]
    if findings.rows:
        lines += ["", *table(findings.columns[:1], findings.columns[1:], findings.rows)]
    if findings.facts:
        facts = map(fact_cells, findings.facts)
        lines += ["", *table(("seen",), ("value", "figure", "met"), facts)]
    return lines


def _findings_as_json(findings: Findings) -> dict:
    return {
        "facts": [asdict(fact) for fact in findings.facts],
        "table": [dict(zip(findings.columns, row)) for row in findings.rows],
        "samples": {
            name: [sample.as_json() for sample in samples] for name, samples in findings.samples.items()
        },
    }
