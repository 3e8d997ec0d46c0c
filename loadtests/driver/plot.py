"""Draws a soak: memory per node, keys in Redis, requests; as SVG, without a library."""

from pathlib import Path

_WIDTH, _LEFT, _RIGHT = 960, 70, 20
_PANEL, _GAP, _TOP = 170, 50, 40
_COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"]

Series = list[tuple[float, float]]


def write(path: Path, report: dict) -> None:
    path.write_text(_draw(report))


def _draw(report: dict) -> str:
    samples = report["samples"]
    end = max([sample["second"] for sample in samples] + [60])
    # Not what was answered while everything was being stopped.
    minutes = [row for row in report["minutes"] if 60 * row["minute"] + 30 < end]
    names = list(samples[0]["memory_kib"]) if samples else []
    memory = {
        name: [(s["second"], s["memory_kib"][name] / 1024) for s in samples if s["memory_kib"].get(name)]
        for name in names
    }
    keys = {"keys": [(s["second"], s["redis"]["keys"]) for s in samples if s["redis"]]}

    def rates(key: str) -> Series:
        return [(60 * row["minute"] + 30, row[key]) for row in minutes]

    requests = {"answered per minute": rates("answered")}
    losses = {
        "retried": rates("retried"),
        "cut off": rates("cut_off"),
        "failed": rates("failed"),
    }
    panels = [
        ("resident memory, MiB", memory),
        ("keys in Redis", keys),
        ("requests answered per minute", requests),
        ("requests retried, cut off, failed per minute", losses),
    ]
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="20">Soak of {report["date"]}, commit {report["commit"]}: '
        "grey lines are kills of nodes, orange ones restarts of Redis</text>",
    ]
    for index, (title, series) in enumerate(panels):
        parts += _panel(_TOP + index * (_PANEL + _GAP), title, series, end, report["events"])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(top: float, title: str, series: dict[str, Series], end: float, events: list[dict]) -> list[str]:
    highest = max([value for points in series.values() for _, value in points] + [1])
    ceiling = _round_up(highest * 1.05)

    def x(second: float) -> float:
        return _LEFT + second / end * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return top + _PANEL - value / ceiling * _PANEL

    parts = [f'<text x="{_LEFT}" y="{top - 6:.0f}" font-weight="bold">{title}</text>']
    for step in range(5):
        value = ceiling * step / 4
        parts.append(_line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "#dddddd"))
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for event in events:
        colour = "#bbbbbb" if "killed" in event["what"] else "#ff9900" if event["what"].startswith("redis") else None
        if colour:
            parts.append(_line(x(event["second"]), top, x(event["second"]), top + _PANEL, colour))
    minutes = int(end // 60)
    for minute in range(0, minutes + 1, max(1, minutes // 10)):
        parts.append(f'<text x="{x(60 * minute):.1f}" y="{top + _PANEL + 16:.0f}" text-anchor="middle">{minute} min</text>')
    for index, (name, points) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        for run in _runs(points):
            path = " ".join(f"{x(second):.1f},{y(value):.1f}" for second, value in run)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        place = _WIDTH - _RIGHT - 110 * (len(series) - index - 1)
        parts.append(f'<text x="{place}" y="{top - 6:.0f}" text-anchor="end" fill="{colour}">{name}</text>')
    return parts


def _runs(points: Series) -> list[Series]:
    """Where a value is missing, the line is."""
    runs: list[Series] = []
    for point in points:
        if runs and point[0] - runs[-1][-1][0] <= 90:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _round_up(value: float) -> float:
    power = 1.0
    while power * 10 < value:
        power *= 10
    return next(power * step for step in (1, 2, 4, 5, 8, 10) if power * step >= value)
