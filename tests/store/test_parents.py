"""What a job of a graph is told of its parents when it starts."""

import orjson
import pytest

from penstock.domain import ids
from penstock.domain.attempt import Ending, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import Started, State
from penstock.domain.submission import Submission
from penstock.domain.workflow import Kin, Parent
from penstock.store import parents
from penstock.store.parents import Parents
from tests.support import making
from tests.support.database import Database, settlement
from tests.support.making import FINAL_FAILURE
from tests.support.woven import ids_of, loose, woven

MIB = 1024 * 1024


async def end(db: Database, ids_: list[JobId], *endings: Ending) -> None:
    """Starts these jobs and settles them so."""
    jobs = await db.jobs.start(ids_, await db.worker())
    assert len(jobs) == len(ids_)
    for job, ending in zip(jobs, endings, strict=True):
        one = [settlement(job, ending)]
        if job.graph_id is None:
            await db.jobs.settle(one)
        else:
            await db.graphs.settle(one)


async def begun(db: Database, id_: JobId) -> Started:
    (job,) = await db.jobs.start([id_], await db.worker())
    return job


async def kin_of(db: Database, id_: JobId, bytes_max: int = MIB) -> Kin:
    job = await begun(db, id_)
    return (await Parents(db.postgres, bytes_max).of([job]))[id_]


def returned(value: object) -> Ending:
    return Ending(Outcome.SUCCEEDED, result=orjson.dumps(value).decode())


async def test_a_job_of_a_workflow_is_told_its_name_and_its_parents(db: Database) -> None:
    graph = woven({"a": [], "b": [], "c": ["b", "a"]}, {"c": {"run_if": "all_finished"}})
    await db.submissions.store_graph(graph)
    by_name = ids_of(graph)
    a, b, c = by_name["a"], by_name["b"], by_name["c"]
    await end(db, [a, b], returned({"rows": [1]}), FINAL_FAILURE)
    assert await kin_of(db, c) == Kin(
        "c", {"a": Parent(a, "a", State.SUCCEEDED, '{"rows":[1]}'), "b": Parent(b, "b", State.DEAD)}
    )


async def test_a_job_without_parents_is_told_its_name(db: Database) -> None:
    graph = woven({"a": [], "b": ["a"]})
    await db.submissions.store_graph(graph)
    assert await kin_of(db, ids_of(graph)["a"]) == Kin("a")


async def test_parents_that_are_not_over_yet_are_told_with_where_they_stand(db: Database) -> None:
    graph = woven(
        {"a": [], "ready": [], "later": [], "runs": [], "waits": ["runs"]}
        | {"child": ["a", "ready", "later", "runs", "waits"]},
        {"child": {"run_if": "any_succeeded"}, "later": {"delay_s": 60.0}},
    )
    await db.submissions.store_graph(graph)
    by_name = ids_of(graph)
    await begun(db, by_name["runs"])
    await end(db, [by_name["a"]], returned(1))
    kin = await kin_of(db, by_name["child"])
    assert {name: (one.state, one.result) for name, one in kin.parents.items()} == {
        "a": (State.SUCCEEDED, "1"),
        "ready": (State.READY, "null"),
        "later": (State.SCHEDULED, "null"),
        "runs": (State.RUNNING, "null"),
        "waits": (State.BLOCKED, "null"),
    }


async def test_outside_of_workflows_parents_go_by_their_ids(db: Database) -> None:
    graph = woven({"a": []})
    await db.submissions.store_graph(graph)
    plain, member = (await db.submit())[0], ids_of(graph)["a"]
    child = loose(plain, member)
    await db.submissions.store_graph(Submission([child]))
    await end(db, [plain], returned("plain"))
    await end(db, [member], returned("of a workflow"))
    kin = await kin_of(db, child.id)
    assert kin.name is None
    assert {name: one.result for name, one in kin.parents.items()} == {
        ids.text(plain): '"plain"',
        ids.text(member): '"of a workflow"',
    }


async def test_siblings_share_what_their_parents_returned(db: Database) -> None:
    graph = woven({"a": [], **{f"b{n}": ["a"] for n in range(250)}})
    await db.submissions.store_graph(graph)
    by_name = ids_of(graph)
    await end(db, [by_name["a"]], returned("x" * 1000))
    children = [id_ for name, id_ in by_name.items() if name != "a"]
    jobs = await db.jobs.start(children, await db.worker())
    told = await Parents(db.postgres, MIB).of(jobs)
    assert set(told) == set(children)
    results = {id(one.parents["a"].result) for one in told.values()}
    assert len(results) <= 3, "each child has a copy of its own"


@pytest.mark.parametrize("letters", ["x" * 600, "\u00e4" * 300])
async def test_more_results_than_a_job_may_get_are_withheld(db: Database, letters: str) -> None:
    """Also where they are stored compressed, as what repeats itself is."""
    graph = woven({"a": [], "b": [], "both": ["a", "b"], "one": ["a"]})
    await db.submissions.store_graph(graph)
    by_name = ids_of(graph)
    large = returned(letters * 10)
    await end(db, [by_name["a"], by_name["b"]], large, large)
    kin = await kin_of(db, by_name["both"], 9000)
    assert kin.withheld >= 12_000
    assert {one.result for one in kin.parents.values()} == {"null"}
    assert {one.state for one in kin.parents.values()} == {State.SUCCEEDED}
    assert (await kin_of(db, by_name["one"], 9000)).parents["a"].result == large.result


async def test_many_parents_are_read_in_slices(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parents, "_SLICE_BYTES", 64 * 1024)
    names = [f"a{n}" for n in range(300)]
    graph = woven({**{name: [] for name in names}, "all": names})
    await db.submissions.store_graph(graph)
    by_name = ids_of(graph)
    await end(db, [by_name[name] for name in names], *(returned(name) for name in names))
    kin = await kin_of(db, by_name["all"])
    assert {name: one.result for name, one in kin.parents.items()} == {
        name: f'"{name}"' for name in names
    }
    assert [one.id for one in kin.parents.values()] == sorted(by_name[name] for name in names)


async def test_a_parent_that_was_pruned_is_not_told_of(db: Database) -> None:
    plain, other = await db.submit(2)
    child = loose(plain, other)
    await db.submissions.store_graph(Submission([child]))
    await end(db, [plain, other], returned(1), returned(2))
    for table in ("jobs", "job_ended"):
        await db.session.execute(f"DELETE FROM {table} WHERE job_id = $1", plain)
    assert list((await kin_of(db, child.id)).parents) == [ids.text(other)]


async def test_names_are_looked_up_in_one_workflow(db: Database) -> None:
    one, other = woven({"a": [], "b": []}), woven({"a": []})
    for graph in (one, other):
        await db.submissions.store_graph(graph)
    assert one.workflow is not None
    found = await Parents(db.postgres, MIB).ids_of(one.workflow.id, ["a", "z"])
    assert found == {"a": ids_of(one)["a"]}


async def test_nobody_is_told_nothing(db: Database) -> None:
    assert await Parents(db.postgres, MIB).of([]) == {}
    stranger = making.started(graph_id=making.job_id())
    assert await Parents(db.postgres, MIB).of([stranger]) == {stranger.id: Kin()}
