"""Kinds for a workflow: `etl-extract` reads a table, `etl-transform` and `etl-load` come of it.

How many parts a table has is known only when it has been read, so extract submits a job for each of
them and one that waits for all, with the parts' results in its payload. `zones.csv` is a table to
try it on: the time zones of the world, from zone1970.tab of the tz database (public domain).
"""

import csv
import io
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from penstock.handlers import Context, PermanentError, handler

FILE_MAX_BYTES = 16 * 1024 * 1024
_HEAD = 50  # rows that extract answers, for others to look at
_GROUPS_MAX = 10_000


class Extract(BaseModel):
    """A CSV file, names of the columns first; `by` which column to group, `of` which to compute."""

    model_config = ConfigDict(strict=True, extra="forbid")

    file: Annotated[str, Field(min_length=1, max_length=1000)]
    by: Annotated[str, Field(min_length=1, max_length=200)]
    of: Annotated[str, Field(min_length=1, max_length=200)]
    rows_per_job: Annotated[int, Field(ge=1, le=10_000)] = 100


class Transform(BaseModel):
    rows: list[tuple[str, str]]  # the value to group by, and a number


class Group(BaseModel):
    rows: int = 0
    sum: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    def add(self, other: "Group") -> None:
        self.rows += other.rows
        self.sum += other.sum
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)


class Part(BaseModel):
    """What a transform answers. `refused`: rows whose value is no number."""

    groups: dict[str, Group] = Field(default_factory=dict)
    refused: int = 0


class Load(BaseModel):
    by: str
    parts: list[Part]


@handler("etl-extract")
def extract(payload: Extract, ctx: Context) -> dict[str, Any]:
    """Answers `{"rows", "jobs", "head"}`: how many rows there are, how many jobs take them, and the
    first of them as CSV. Submits `transform-1` and so on, and `load`."""
    if ctx.workflow_id is None:
        raise PermanentError(
            "the jobs that it submits go by their names in a workflow", "no-workflow"
        )
    names, *rows = _table(_read(payload.file))
    by, of = _place(names, payload.by), _place(names, payload.of)
    parts: list[str] = []
    for start in range(0, len(rows), payload.rows_per_job):
        ctx.raise_if_cancelled()
        chunk = [[row[by], row[of]] for row in rows[start : start + payload.rows_per_job]]
        parts.append(f"transform-{len(parts) + 1}")
        ctx.submit("etl-transform", {"rows": chunk}, name=parts[-1])
    ctx.submit(
        "etl-load",
        {"by": payload.by, "parts": [{"$result": name} for name in parts]},
        name="load",
        depends_on=parts,
    )
    return {"rows": len(rows), "jobs": len(parts), "head": _written([names, *rows[:_HEAD]])}


@handler("etl-transform")
def transform(payload: Transform) -> Part:
    """Counts, sums and bounds of some rows, by group."""
    part = Part()
    for by, of in payload.rows:
        number = _number(of)
        if number is None:
            part.refused += 1
            continue
        one = Group(rows=1, sum=number, min=number, max=number)
        part.groups.setdefault(by, Group()).add(one)
    return part


@handler("etl-load")
def load(payload: Load, ctx: Context) -> dict[str, Any]:
    """Puts the parts together: `{"rows", "refused", "groups": [{<by>, "rows", "min", "max",
    "mean"}, …]}`, the largest group first."""
    groups: dict[str, Group] = {}
    for part in payload.parts:
        for name, group in part.groups.items():
            groups.setdefault(name, Group()).add(group)
    if len(groups) > _GROUPS_MAX:
        raise PermanentError(f"there are more than {_GROUPS_MAX} groups", "too-many-groups")
    ctx.log.info("put together", parts=len(payload.parts), groups=len(groups))
    ranked = sorted(groups.items(), key=lambda item: (-item[1].rows, item[0]))
    return {
        "rows": sum(group.rows for group in groups.values()),
        "refused": sum(part.refused for part in payload.parts),
        "groups": [_described(payload.by, name, group) for name, group in ranked],
    }


def _described(by: str, name: str, group: Group) -> dict[str, Any]:
    mean = round(group.sum / group.rows, 4)
    return {by: name, "rows": group.rows, "min": group.min, "max": group.max, "mean": mean}


def _read(name: str) -> str:
    """The text of a file below the directory that penstock was started in."""
    here = Path.cwd().resolve()
    try:
        path = (here / name).resolve()
        if not path.is_relative_to(here) or path.suffix != ".csv":
            raise PermanentError(f"{name!r} is no .csv file below {here}", "bad-file")
        if path.stat().st_size > FILE_MAX_BYTES:
            raise PermanentError(f"the file has more than {FILE_MAX_BYTES} bytes", "bad-file")
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as exc:
        raise PermanentError(f"{name!r} can't be read: {exc}", "bad-file") from exc


def _table(text: str) -> list[list[str]]:
    """Names and rows, each as long as the names; lines without any value are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    table: list[list[str]] = []
    try:
        for row in filter(None, reader):
            if table and len(row) != len(table[0]):
                raise PermanentError(f"line {reader.line_num} has {len(row)} values", "bad-csv")
            table.append(row)
    except csv.Error as exc:
        raise PermanentError(f"line {reader.line_num}: {exc}", "bad-csv") from exc
    if not table:
        raise PermanentError("the table is empty", "bad-csv")
    return table


def _written(table: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def _place(names: list[str], name: str) -> int:
    if name not in names:
        raise PermanentError(f"the table has no column {name!r}", "bad-csv")
    return names.index(name)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e100 else None
