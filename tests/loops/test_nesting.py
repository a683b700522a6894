"""Jobs of kind `workflow` whose payload can't be made a workflow: they alone end."""

from typing import Any

import orjson
import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import Started
from tests.support.still import Still


async def nested(still: Still, *jobs: dict[str, Any], **fields: Any) -> tuple[JobId, Any]:
    """A job of kind `workflow`, run to its end: its id, and its error."""
    payload = orjson.dumps({"jobs": list(jobs)}).decode()
    (id_,) = await still.submit(kind="workflow", payload=payload, **fields)
    await still.engine.worker.step()
    await still.in_places([id_], "dead")
    return id_, orjson.loads((await still.db.row("job_ended", id_))["error"])


async def test_a_bug_of_ours_in_reading_one_ends_that_job_and_not_the_process(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_job: Started) -> None:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(still.engine.nester, "read", broken)
        _, error = await nested(still, {"name": "a", "kind": "echo"})
    assert error["type"] == "internal-error"
    (again,) = await still.submit(
        kind="workflow", payload='{"jobs": [{"name": "a", "kind": "echo", "payload": {}}]}'
    )
    await still.engine.worker.step()
    await still.engine.nester.drained()
    assert await still.db.places([again]) == ["running"]
    assert await still.db.count("workflows") == 1


async def test_a_unique_key_of_a_live_job_is_named_as_at_the_door(still: Still) -> None:
    await still.submit(unique_key="taken", delay_s=60)
    _, error = await nested(
        still, {"name": "a", "kind": "echo", "payload": {}, "unique_key": "taken"}
    )
    assert error["type"] == "duplicate-job"
    assert await still.db.count("workflows") == 0
