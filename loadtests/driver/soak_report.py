"""A soak as a table for people and as JSON for programs."""

import json
from collections import Counter
from pathlib import Path

from .book import Book
from .clients import Crowd


def summarize(book: Book, crowd: Crowd, **about) -> dict:
    minutes = sorted(set(book.minutes) | set(book.latencies))
    return about | {
        "minutes": [_minute(book, minute) for minute in minutes],
        "kinds": [_kind(kind, latencies) for kind, latencies in sorted(book.by_kind.items())],
        "failures": book.failures,
        "events": book.events,
        "changes": len(crowd.changes),
        "converged": crowd.converged,
        "listeners": [
            {
                "server": listener.server,
                "streams": len(listener.stood),
                "heard": len(listener.heard),
                "missed": listener.missed(),
            }
            for listener in crowd.listeners
        ],
        "samples": book.samples,
    }


def write(stem: Path, report: dict) -> Path:
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    table = stem.with_suffix(".md")
    table.write_text(_markdown(stem.name, report))
    return table


def _minute(book: Book, minute: int) -> dict:
    counts = book.minutes[minute]
    latencies = sorted(book.latencies[minute])
    return {
        "minute": minute,
        "answered": counts["answered"],
        "retried": counts["retried"],
        "cut_off": counts["cut off"],
        "failed": counts["failed"],
        "p50_ms": _quantile(latencies, 0.5),
        "p99_ms": _quantile(latencies, 0.99),
        "max_ms": _quantile(latencies, 1.0),
    }


def _kind(kind: str, latencies: list[float]) -> dict:
    ordered = sorted(latencies)
    return {
        "kind": kind,
        "answered": len(ordered),
        "p50_ms": _quantile(ordered, 0.5),
        "p99_ms": _quantile(ordered, 0.99),
        "max_ms": _quantile(ordered, 1.0),
    }


def _quantile(ordered: list[float], part: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 1)


def _markdown(name: str, report: dict) -> str:
    machine = report["machine"]
    total: Counter[str] = Counter()
    for row in report["minutes"]:
        total.update({key: row[key] for key in ("answered", "retried", "cut_off", "failed")})
    took = [change["took"] for change in report["converged"] if change["took"] is not None]
    lines = [
        f"# Soak of {report['date']}",
        "",
        f"- command: `{report['command']}`",
        f"- commit: {report['commit']}",
        f"- machine: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, {machine['kernel']}; shared",
        f"- answered: {total['answered']}",
        f"- of them after one retry on a refused connection: {total['retried']}",
        f"- cut off, in flight at a node that was killed: {total['cut_off']}",
        f"- failed beyond that: {total['failed']}",
        f"- changes of lists: {report['changes']}; until every node showed one: "
        f"median {_quantile(sorted(took), 0.5)} s, longest {_quantile(sorted(took), 1.0)} s",
        "- change streams: "
        + "; ".join(
            f"{one['server']}: {one['streams']} streams, {one['heard']} changes heard, "
            f"missed while a stream stood: {len(one['missed'])}"
            for one in report["listeners"]
        ),
        "",
        f"![memory, keys and requests over time]({name}.svg)",
        "",
        "Memory is resident MiB at the end of the minute; keys and memory are those of Redis. Latencies include the clients'",
        "own part and the wait for a retry.",
        "",
        "| minute | what happened | answered | retried | cut off | failed | p50 ms | p99 ms | max ms "
        "| node-1 | node-2 | node-3 | keys | Redis MiB |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [_row(report, row) for row in report["minutes"]]
    lines += ["", "| request | answered | p50 ms | p99 ms | max ms |", "|---|--:|--:|--:|--:|"]
    lines += [
        f"| {one['kind']} | {one['answered']} | {one['p50_ms']} | {one['p99_ms']} | {one['max_ms']} |"
        for one in report["kinds"]
    ]
    if report["failures"]:
        lines += ["", "Failures:", "", "| second | kind | what |", "|--:|---|---|"]
        lines += [
            f"| {one['second']} | {one['kind']} | {one['what'].replace('|', chr(92) + '|')} |"
            for one in report["failures"]
        ]
    return "\n".join(lines) + "\n"


def _row(report: dict, row: dict) -> str:
    begin, end = row["minute"] * 60, row["minute"] * 60 + 60
    events = [event["what"] for event in report["events"] if begin <= event["second"] < end]
    samples = [sample for sample in report["samples"] if begin <= sample["second"] < end]
    last = samples[-1] if samples else {"memory_kib": {}, "redis": None}
    memory = [last["memory_kib"].get(f"node-{number}") for number in (1, 2, 3)]
    memory = [f"{kib / 1024:.1f}" if kib else "–" for kib in memory]
    redis = last["redis"]
    size = [str(redis["keys"]), f"{redis['bytes'] / 2**20:.1f}"] if redis else ["–", "–"]
    counts = [str(row[key]) for key in ("answered", "retried", "cut_off", "failed")]
    latencies = ["–" if row[key] is None else f"{row[key]:.0f}" for key in ("p50_ms", "p99_ms", "max_ms")]
    told = ", ".join(event for event in events if not event.endswith("is back"))
    return "| " + " | ".join([str(row["minute"] + 1), told, *counts, *latencies, *memory, *size]) + " |"
