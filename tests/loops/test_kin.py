"""Jobs of graphs at their start: nothing runs before it knows of its parents."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from penstock.domain import ids
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.domain.submission import Submission
from penstock.domain.workflow import Kin, NewWorkflow
from penstock.settings import Settings
from tests.support import making
from tests.support.still import Still, changed, standing
from tests.support.waiting import eventually
from tests.support.weaving import Parents, Woven, new_jobs

Fields = Mapping[str, Mapping[str, Any]]


def text(value: Any) -> str:
    return orjson.dumps(value).decode()


async def woven(still: Still, parents: Parents, fields: Fields | None = None) -> Woven:
    """A stored workflow in line, its jobs `echo` unless `fields` say something else."""
    workflow = NewWorkflow(making.job_id(), "woven")
    jobs = [
        replace(job, **(fields or {}).get(str(job.name), {}))
        for job in new_jobs(parents, workflow.id)
    ]
    await still.engine.submitter.submit(Submission(jobs, workflow=workflow))
    await still.engine.enqueuer.drained()
    return Woven(still.db, workflow.id, {str(job.name): job.id for job in jobs})


async def over(still: Still, id_: JobId) -> tuple[str, Any]:
    """Runs what is in line until this job is over: its state, and its result or error."""

    async def look() -> bool:
        await still.engine.worker.step()
        return (await still.db.places([id_]))[0] in ("succeeded", "dead", "cancelled")

    await eventually(look, "it is over", every_s=0.01)
    row = await still.db.row("job_ended", id_)
    return row["state"], orjson.loads(row["result"] or row["error"])


def asks(still: Still, monkeypatch: pytest.MonkeyPatch, failures: int = 0) -> list[int]:
    """How many jobs each question about parents is for; the first few fail."""
    parents, asked = still.engine.hands.parents, list[int]()
    of = parents.of

    async def watched(jobs: Sequence[Started]) -> dict[JobId, Kin]:
        asked.append(len(jobs))
        if len(asked) <= failures:
            raise StoreUnavailable("as asked")
        return await of(jobs)

    monkeypatch.setattr(parents, "of", watched)
    return asked


@pytest.mark.parametrize("kind", ["seen", "seen-thread"])
async def test_a_handler_sees_its_parents_and_their_results_in_its_payload(
    still: Still, kind: str
) -> None:
    payload = {"first": {"$result": "a", "pointer": "/rows/0"}, "all": [{"$result": "a"}]}
    graph = await woven(
        still,
        {"a": [], "b": ["a"]},
        {"a": {"payload": text({"rows": [7, 8]})}, "b": {"kind": kind, "payload": text(payload)}},
    )
    state, seen = await over(still, graph.ids["b"])
    assert state == "succeeded", seen
    assert seen["payload"] == {"first": 7, "all": [{"rows": [7, 8]}]}
    if kind == "seen":
        assert seen["parents"] == {"a": ["succeeded", {"rows": [7, 8]}]}
        assert (seen["name"], seen["workflow_id"]) == ("b", ids.text(graph.id))


async def test_a_loose_job_sees_its_parents_by_their_ids(still: Still) -> None:
    (parent,) = await still.submit(payload="[1]")
    name = ids.text(parent)
    child = making.new_job(
        kind="seen", parents=(parent,), depends_on=(name,), payload=text({"$result": name})
    )
    await still.engine.submitter.submit(Submission([child]))
    _, seen = await over(still, child.id)
    assert seen == {
        "payload": [1],
        "parents": {name: ["succeeded", [1]]},
        "name": None,
        "workflow_id": None,
    }


@pytest.mark.parametrize("kind", ["seen", "seen-thread"])
async def test_a_reference_that_does_not_resolve_fails_for_good(still: Still, kind: str) -> None:
    payload = text({"x": {"$result": "a", "pointer": "/rows/0"}})
    graph = await woven(still, {"a": [], "b": ["a"]}, {"b": {"kind": kind, "payload": payload}})
    state, error = await over(still, graph.ids["b"])
    assert (state, error["type"]) == ("dead", "reference-unresolved")
    assert error["message"].startswith("/rows/0 of the result of 'a': ")
    assert await still.outcomes(graph.ids["b"]) == ["failed"]


async def test_a_payload_and_results_have_limits(
    still_settings: Settings, dsn: str, redis_url: str
) -> None:
    limits = {"payload_max_bytes": 1500, "parents_max_bytes": 2500}
    async with standing(changed(still_settings, worker=limits), dsn, redis_url) as still:
        twice = text([{"$result": "a"}, {"$result": "a"}])
        graph = await woven(
            still,
            {"a": [], "b": [], "c": [], "twice": ["a"], "three": ["a", "b", "c"], "none": ["a"]},
            {name: {"payload": text("x" * 1000)} for name in "abc"}
            | {"twice": {"payload": twice}, "three": {"kind": "seen"}},
        )
        assert (await over(still, graph.ids["twice"]))[1]["type"] == "payload-too-large"
        assert (await over(still, graph.ids["three"]))[1]["type"] == "parents-too-large"
        assert (await over(still, graph.ids["none"]))[0] == "succeeded"


async def test_a_plain_payload_that_looks_like_a_reference_stays_as_it_is(still: Still) -> None:
    (id_,) = await still.submit(payload=text({"$result": "a"}))
    assert await over(still, id_) == ("succeeded", {"$result": "a"})


async def test_plain_jobs_pay_nothing(still: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asks(still, monkeypatch)
    for id_ in await still.submit(3):
        await over(still, id_)
    assert asked == []


async def test_a_batch_asks_once(still: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = await woven(still, {"a": [], "b": [], "c": []})
    await still.submit()
    asked = asks(still, monkeypatch)
    await still.engine.worker.step()
    await still.in_places(list(graph.ids.values()), "succeeded")
    assert asked == [3]


async def test_a_job_that_can_not_be_told_is_left_to_adoption(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = await woven(still, {"a": [], "b": ["a"]}, {"b": {"kind": "seen"}})
    await still.engine.worker.step()
    await still.in_places([graph.ids["a"]], "succeeded")
    await still.engine.settler.drained()
    (plain,) = await still.submit()
    asked = asks(still, monkeypatch, failures=2)
    await still.engine.worker.step()
    await still.in_places([plain], "succeeded")
    child = graph.ids["b"]
    assert await still.db.places([child]) == ["running"]
    assert child not in still.engine.held, "it may not run, so nobody here has it"
    assert still.engine.worker.adopt_wake.is_set()
    with pytest.raises(StoreUnavailable):
        await still.engine.worker.adopt()
    assert child not in still.engine.held
    assert await still.engine.worker.adopt() == 0.0
    _, seen = await over(still, child)
    assert seen["parents"] == {"a": ["succeeded", None]}
    assert asked == [1, 1, 1]
    assert await still.outcomes(child) == ["succeeded"]


async def test_a_draining_replica_begins_none_that_it_has_just_been_told_of(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = await woven(still, {"a": []})
    parents = still.engine.hands.parents
    of, asked, gate = parents.of, asyncio.Event(), asyncio.Event()

    async def slow(jobs: Sequence[Started]) -> dict[JobId, Kin]:
        asked.set()
        await gate.wait()
        return await of(jobs)

    monkeypatch.setattr(parents, "of", slow)
    step = asyncio.create_task(still.engine.worker.step())
    await asked.wait()
    assert graph.ids["a"] in still.engine.held, "adoption passes it over meanwhile"
    still.engine.me.draining = True
    gate.set()
    await step
    assert graph.ids["a"] not in still.engine.held
    await still.engine.drain()
    assert await still.db.places([graph.ids["a"]]) == ["ready"]
    assert await still.outcomes(graph.ids["a"]) == ["released"]


async def test_a_nested_workflow_gets_its_parents_results_and_keeps_its_own_references(
    still: Still,
) -> None:
    inner = {
        "jobs": [
            {"name": "one", "kind": "echo", "payload": {"$result": "a"}},
            {
                "name": "two",
                "kind": "echo",
                "payload": {"$result": "one"},
                "depends_on": ["one"],
            },
        ]
    }
    graph = await woven(
        still,
        {"a": [], "b": ["a"]},
        {"a": {"payload": "[7]"}, "b": {"kind": "workflow", "payload": text(inner)}},
    )
    state, _ = await over(still, graph.ids["b"])
    assert state == "succeeded"
    rows = await still.db.session.fetch(
        "SELECT j.name, e.result FROM jobs j JOIN job_ended e USING (job_id) "
        "WHERE j.name IN ('one', 'two') ORDER BY j.name"
    )
    assert [tuple(row) for row in rows] == [("one", "[7]"), ("two", "[7]")]


async def test_a_nested_workflow_whose_references_do_not_resolve_is_dead(still: Still) -> None:
    payload = {"$result": "a", "pointer": "/x"}
    inner = {"jobs": [{"name": "one", "kind": "echo", "payload": payload}]}
    graph = await woven(
        still, {"a": [], "b": ["a"]}, {"b": {"kind": "workflow", "payload": text(inner)}}
    )
    state, error = await over(still, graph.ids["b"])
    assert (state, error["type"]) == ("dead", "reference-unresolved")
