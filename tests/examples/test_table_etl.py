"""A workflow over a real file: read, computed by as many jobs as it takes, put together."""

import csv
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock import settings
from penstock.domain.attempt import Ending
from penstock.domain.ids import JobId
from penstock.domain.workflow import Kin
from penstock.examples import table_etl
from penstock.handlers import Context
from penstock.server import running
from tests.handlers.factory import context, handler_of, run
from tests.support.api import Api
from tests.test_tidy import ROOT

EXTRACT, TRANSFORM, LOAD = (
    handler_of(kind, "penstock.examples") for kind in ("etl-extract", "etl-transform", "etl-load")
)
ZONES = "app/penstock/examples/zones.csv"


def member() -> Context:
    ctx = context(graph_id=JobId(bytes(15) + b"w"))
    ctx.kin = Kin("extract")
    return ctx


async def extracted(ctx: Context, **payload: Any) -> Any:
    ending = await run(EXTRACT, {"file": "a.csv", "by": "x", "of": "n", **payload}, ctx)
    assert ending.failure is None, ending.failure
    return orjson.loads(ending.result or "")


def failure(ending: Ending) -> tuple[str, str]:
    assert ending.failure is not None
    assert not ending.retryable
    return ending.failure.type, ending.failure.message


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text('\ufeffx,n\n"a\nb",1\n\nc,2\nc,x\n')
    return tmp_path


async def test_extract_submits_a_job_for_each_part_and_one_for_all(here: Path) -> None:
    ctx = member()
    result = await extracted(ctx, rows_per_job=2)
    assert result == {"rows": 3, "jobs": 2, "head": 'x,n\n"a\nb",1\nc,2\nc,x\n'}
    first, second, load = map(orjson.loads, ctx.take_submitted())
    assert first["payload"] == {"rows": [["a\nb", "1"], ["c", "2"]]}
    assert second == {"kind": "etl-transform", "name": "transform-2"} | {
        "payload": {"rows": [["c", "x"]]}
    }
    assert load["depends_on"] == ["transform-1", "transform-2"]
    assert load["payload"]["parts"] == [{"$result": "transform-1"}, {"$result": "transform-2"}]


async def test_a_table_without_rows_comes_out_empty(here: Path) -> None:
    (here / "a.csv").write_text("x,n\n")
    ctx = member()
    assert (await extracted(ctx))["jobs"] == 0
    (load,) = map(orjson.loads, ctx.take_submitted())
    ending = await run(LOAD, load["payload"], context())
    assert orjson.loads(ending.result or "") == {"rows": 0, "refused": 0, "groups": []}


async def test_parts_are_put_together(here: Path) -> None:
    rows = [["a", "1"], ["a", "-2.5"], ["b", "4e1"], ["b", "none"], ["b", "nan"], ["b", "1e300"]]
    parts = []
    for row in rows:
        ending = await run(TRANSFORM, {"rows": [row]}, context())
        parts.append(orjson.loads(ending.result or ""))
    ending = await run(LOAD, {"by": "x", "parts": parts}, context())
    assert orjson.loads(ending.result or "") == {
        "rows": 3,
        "refused": 3,
        "groups": [
            {"x": "a", "rows": 2, "min": -2.5, "max": 1.0, "mean": -0.75},
            {"x": "b", "rows": 1, "min": 40.0, "max": 40.0, "mean": 40.0},
        ],
    }


@pytest.mark.parametrize(
    ("text", "payload", "words"),
    [
        ("x,n\n1\n", {}, "line 2 has 1 values"),
        ('x,n\n"1,2\n', {}, "line 2: unexpected end"),
        ("", {}, "the table is empty"),
        ("x,y\n", {}, "no column 'n'"),
        ("x,n\n", {"by": "z"}, "no column 'z'"),
        ("x,n\n", {"file": "../a.csv"}, "is no .csv file below"),
        ("x,n\n", {"file": "/etc/passwd"}, "is no .csv file below"),
        ("x,n\n", {"file": "link.csv"}, "is no .csv file below"),
        ("x,n\n", {"file": "b.csv"}, "can't be read"),
        ("x,n\n", {"file": "a.txt"}, "is no .csv file below"),
        ("x,n\n", {"file": "a\0.csv"}, "null"),
    ],
)
async def test_what_is_wrong_with_a_file_is_said(
    here: Path, text: str, payload: dict[str, Any], words: str
) -> None:
    (here / "a.csv").write_text(text)
    (here / "link.csv").symlink_to("/etc/hostname")
    ctx = member()
    ending = await run(EXTRACT, {"file": "a.csv", "by": "x", "of": "n", **payload}, ctx)
    kind, message = failure(ending)
    assert kind in ("bad-file", "bad-csv")
    assert words in message


async def test_a_large_file_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_etl, "FILE_MAX_BYTES", 3)
    ending = await run(EXTRACT, {"file": "a.csv", "by": "x", "of": "n"}, member())
    assert failure(ending) == ("bad-file", "the file has more than 3 bytes")


async def test_outside_of_a_workflow_it_does_nothing(here: Path) -> None:
    ending = await run(EXTRACT, {"file": "a.csv", "by": "x", "of": "n"}, context())
    assert failure(ending)[0] == "no-workflow"


async def test_the_time_zones_of_the_world_go_through_a_running_replica(
    replica_settings: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    modules = ("penstock.handlers.samples", "penstock.examples")
    handlers = replica_settings.handlers.model_copy(update={"modules": modules})
    payload = {"file": ZONES, "by": "continent", "of": "latitude", "rows_per_job": 40}
    head = {"csv": {"$result": "extract", "pointer": "/head"}}
    body = {
        "name": "zones",
        "jobs": [
            {"name": "extract", "kind": "etl-extract", "payload": payload},
            {"name": "head", "kind": "csv-stats", "payload": head, "depends_on": ["extract"]},
        ],
    }
    changed = replica_settings.model_copy(update={"handlers": handlers})
    async with running(changed) as replica, Api(replica.url) as api:
        _, workflow = await api.call("POST", "/v1/workflows", body, {"Prefer": "wait=20"})
        assert workflow["state"] == "succeeded", workflow
        listed = await api.get(f"/v1/jobs?workflow_id={workflow['id']}&include=result")
    results = {job["name"]: job["result"] for job in listed["items"]}
    assert len(results) == 2 + 8 + 1
    with (ROOT / ZONES).open() as file:
        rows = list(csv.DictReader(file))
    assert results["load"]["rows"] == len(rows) == 312
    for group in results["load"]["groups"]:
        values = [float(row["latitude"]) for row in rows if row["continent"] == group["continent"]]
        assert group["rows"] == len(values)
        assert (group["min"], group["max"]) == (min(values), max(values))
        assert group["mean"] == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert results["head"]["rows"] == 50
