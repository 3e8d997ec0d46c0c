"""Quantiles of what was seen one by one."""

import math


def quantile(ordered: list[float], share: float) -> float:
    """The nearest rank; not a number where there is nothing."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def brief(ordered: list[float]) -> str:
    """For a cell: p50, p99 and the most, in milliseconds."""
    return " / ".join(f"{quantile(ordered, share):.1f}" for share in (0.5, 0.99, 1))
