"""Figures that tests measure: printed, so that `pytest -s` and a failure's report show them."""

import os
from collections.abc import Iterable


def figures(title: str, **values: object) -> None:
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
    print(f"\n[{title}] {shown}")  # noqa: T201  # this is how pytest gets to see it


def crowded(seconds: float) -> float:
    """A promise in seconds, on a machine that others may use too: times how many want each
    processor (over the last minute), where they are more than one."""
    wanted = os.getloadavg()[0] / (os.cpu_count() or 1)
    if wanted <= 1:
        return seconds
    figures("crowded machine", wanted=wanted, promised=seconds, allowed=seconds * wanted)
    return seconds * wanted


def share(values: Iterable[float], part: float) -> float:
    """The value below which that part of them lies; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
