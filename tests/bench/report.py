"""The figures as a table for people, and as JSON for programs."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from tests.bench.figures import Line

_LEFT = {"measure", "figure", "unit", "verdict"}


def table(lines: Sequence[Line]) -> str:
    """A Markdown table, aligned so that it reads well as it is."""
    several = any(len(line.values) > 1 for line in lines)
    rows = [_cells(line, several) for line in lines]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    rule = {
        name: "-" * width if name in _LEFT else "-" * (width - 1) + ":"
        for name, width in widths.items()
    }
    head = {name: name for name in widths}
    return "\n".join(_row(cells, widths) for cells in (head, rule, *rows))


def write_json(path: Path, about: dict[str, str], lines: Sequence[Line]) -> None:
    """All that the table says, and each run's values."""
    figures = [
        {
            "measure": line.measure,
            "figure": line.name,
            "unit": line.unit,
            "median": line.median,
            "values": line.values,
            "target": str(line.target) if line.target else None,
            "met": line.target.met(line.median) if line.target else None,
            "others_cpu_pct": line.others_pct,
        }
        for line in lines
    ]
    content = {"about": about, "figures": figures}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _cells(line: Line, several: bool) -> dict[str, str]:
    cells = {"measure": line.measure, "figure": line.name, "value": _number(line.median)}
    if several:
        cells["of runs"] = f"{_number(min(line.values))} to {_number(max(line.values))}"
    return {
        **cells,
        "unit": line.unit,
        "target": str(line.target) if line.target else "",
        "verdict": _verdict(line),
        "others' CPU": f"{line.others_pct:.0f} %",
    }


def _verdict(line: Line) -> str:
    if line.target is None:
        return ""
    return "met" if line.target.met(line.median) else "NOT MET"


def _number(value: float) -> str:
    """Three or more digits that count, no more."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _row(cells: dict[str, str], widths: dict[str, int]) -> str:
    padded = [
        text.ljust(widths[name]) if name in _LEFT else text.rjust(widths[name])
        for name, text in cells.items()
    ]
    return f"| {' | '.join(padded)} |"
