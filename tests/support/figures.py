"""Figures that tests measure: printed, so that `pytest -s` and a failure's report show them."""

from collections.abc import Iterable


def figures(title: str, **values: object) -> None:
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
    print(f"\n[{title}] {shown}")  # noqa: T201  # this is how pytest gets to see it


def share(values: Iterable[float], part: float) -> float:
    """The value below which that part of them lies; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
