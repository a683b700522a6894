"""The kind `csv-stats`: describes the columns of a table.

A plain `def`, which runs in a thread of the worker's, as suits work that computes. It can't be
interrupted from outside, so it asks now and then whether to go on.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from penstock.handlers import Context, PermanentError, handler

COLUMNS_MAX = 200
TOP = 3
NUMBER_MAX = 1e100  # squares of larger numbers leave the range of floats
_ASK_EVERY = 1000  # rows


class CsvStats(BaseModel):
    """A table as CSV, names of the columns first."""

    model_config = ConfigDict(strict=True, extra="forbid")

    csv: Annotated[str, Field(min_length=1)]
    delimiter: Annotated[str, Field(pattern=r"^[,;|\t]$")] = ","


@handler("csv-stats")
def csv_stats(payload: CsvStats, ctx: Context) -> dict[str, Any]:
    """Answers `{"rows", "columns": [{"name", "kind": "number"|"text"|"empty", …}, …]}`.

    Numbers have count, missing, min, max, mean and stdev (of the sample), texts count, missing,
    distinct and the commonest.
    """
    names, *rows = _table(payload, ctx)
    ctx.log.info("read", rows=len(rows), columns=len(names))
    described = []
    for index, name in enumerate(names):
        ctx.raise_if_cancelled()
        ctx.progress(100 * (index + 1) / len(names), f"column {name}")
        described.append({"name": name, **_column([row[index].strip() for row in rows])})
    return {"rows": len(rows), "columns": described}


def _table(payload: CsvStats, ctx: Context) -> list[list[str]]:
    """Names and rows, each as long as the names; empty lines are left out."""
    table: list[list[str]] = []
    for line, row in _rows(payload):
        if len(table) % _ASK_EVERY == 0:
            ctx.raise_if_cancelled()
        if not table:
            _check_names(row)
        elif len(row) != len(table[0]):
            raise PermanentError(
                f"line {line} has {len(row)} values, but there are {len(table[0])} columns",
                "bad-csv",
                {"line": line},
            )
        table.append(row)
    if not table:
        raise PermanentError("the table is empty", "bad-csv")
    return table


def _rows(payload: CsvStats) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(
        io.StringIO(payload.csv.removeprefix("\ufeff"), newline=""),
        delimiter=payload.delimiter,
        strict=True,
    )
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as exc:
        line = reader.line_num
        raise PermanentError(f"line {line}: {exc}", "bad-csv", {"line": line}) from exc


def _check_names(names: list[str]) -> None:
    if len(names) > COLUMNS_MAX:
        raise PermanentError(f"the table has more than {COLUMNS_MAX} columns", "bad-csv")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise PermanentError(f"the column {twice[0][:100]!r} is there twice", "bad-csv")


def _column(values: list[str]) -> dict[str, Any]:
    present = [value for value in values if value]
    counts = {"count": len(present), "missing": len(values) - len(present)}
    numbers = _numbers(present)
    if not present:
        return {"kind": "empty", **counts}
    if numbers is None:
        return {"kind": "text", **counts, **_text(present)}
    return {"kind": "number", **counts, **_number(numbers)}


def _numbers(values: list[str]) -> list[float] | None:
    """The values as numbers, or None if one of them isn't."""
    numbers = []
    for value in values:
        try:
            number = float(value)
        except ValueError:
            return None
        if not math.isfinite(number) or abs(number) > NUMBER_MAX or "_" in value:
            return None
        numbers.append(number)
    return numbers


def _number(numbers: list[float]) -> dict[str, Any]:
    return {
        "min": min(numbers),
        "max": max(numbers),
        "mean": fmean(numbers),
        "stdev": stdev(numbers) if len(numbers) > 1 else None,
    }


def _text(values: list[str]) -> dict[str, Any]:
    counts = Counter(values)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    top = [{"value": value[:200], "count": count} for value, count in ranked[:TOP]]
    return {"distinct": len(counts), "top": top}
