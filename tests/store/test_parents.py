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
from tests.support.database import Database
from tests.support.weaving import depend, settle, weave

MIB = 1024 * 1024


async def begun(db: Database, id_: JobId) -> Started:
    (job,) = await db.jobs.start([id_], await db.worker())
    return job


async def kin_of(db: Database, id_: JobId, bytes_max: int = MIB) -> Kin:
    job = await begun(db, id_)
    return (await Parents(db.postgres, bytes_max).of([job]))[id_]


async def end(db: Database, id_: JobId, ending: Ending) -> None:
    """Runs a loose job to that ending."""
    await settle(db, (await begun(db, id_), ending))


def returned(value: object) -> Ending:
    return Ending(Outcome.SUCCEEDED, result=orjson.dumps(value).decode())


async def test_a_job_of_a_workflow_is_told_its_name_and_its_parents(db: Database) -> None:
    graph = await weave(db, {"a": [], "b": [], "c": ["b", "a"]}, c="all_finished")
    a, b = graph.ids["a"], graph.ids["b"]
    await graph.end("a", ending=returned({"rows": [1]}))
    await graph.fail("b")
    assert await kin_of(db, graph.ids["c"]) == Kin(
        "c", {"a": Parent(a, "a", State.SUCCEEDED, '{"rows":[1]}'), "b": Parent(b, "b", State.DEAD)}
    )


async def test_a_job_without_parents_is_told_its_name(db: Database) -> None:
    graph = await weave(db, {"a": [], "b": ["a"]})
    assert await kin_of(db, graph.ids["a"]) == Kin("a")


async def test_parents_that_are_not_over_yet_are_told_with_where_they_stand(db: Database) -> None:
    graph = await weave(
        db,
        {"a": [], "ready": [], "later": [], "runs": [], "waits": ["runs"]}
        | {"child": ["a", "ready", "later", "runs", "waits"]},
        child="any_succeeded",
    )
    later = "UPDATE job_due SET ready_at = now() + interval '1 min' WHERE job_id = $1"
    await db.session.execute(later, graph.ids["later"])
    await graph.start("runs")
    await graph.end("a", ending=returned(1))
    kin = await kin_of(db, graph.ids["child"])
    assert {name: (one.state, one.result) for name, one in kin.parents.items()} == {
        "a": (State.SUCCEEDED, "1"),
        "ready": (State.READY, "null"),
        "later": (State.SCHEDULED, "null"),
        "runs": (State.RUNNING, "null"),
        "waits": (State.BLOCKED, "null"),
    }


async def test_outside_of_workflows_parents_go_by_their_ids(db: Database) -> None:
    graph = await weave(db, {"a": []})
    (plain,), member = await db.submit(), graph.ids["a"]
    child = await depend(db, [plain, member])
    await end(db, plain, returned("plain"))
    await graph.end("a", ending=returned("of a workflow"))
    kin = await kin_of(db, child)
    assert kin.name is None
    assert {name: one.result for name, one in kin.parents.items()} == {
        ids.text(plain): '"plain"',
        ids.text(member): '"of a workflow"',
    }


async def test_siblings_share_what_their_parents_returned(db: Database) -> None:
    graph = await weave(db, {"a": [], **{f"b{n}": ["a"] for n in range(250)}})
    await graph.end("a", ending=returned("x" * 1000))
    children = [id_ for name, id_ in graph.ids.items() if name != "a"]
    jobs = await db.jobs.start(children, await db.worker())
    told = await Parents(db.postgres, MIB).of(jobs)
    assert set(told) == set(children)
    results = {id(one.parents["a"].result) for one in told.values()}
    assert len(results) <= 3, "each child has a copy of its own"


@pytest.mark.parametrize("letters", ["x" * 600, "\u00e4" * 300])
async def test_more_results_than_a_job_may_get_are_withheld(db: Database, letters: str) -> None:
    """Also where they are stored compressed, as what repeats itself is."""
    graph = await weave(db, {"a": [], "b": [], "both": ["a", "b"], "one": ["a"]})
    large = returned(letters * 10)
    await graph.end("a", "b", ending=large)
    kin = await kin_of(db, graph.ids["both"], 9000)
    assert kin.withheld >= 12_000
    assert {one.result for one in kin.parents.values()} == {"null"}
    assert {one.state for one in kin.parents.values()} == {State.SUCCEEDED}
    assert (await kin_of(db, graph.ids["one"], 9000)).parents["a"].result == large.result


async def test_many_parents_are_read_in_slices(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parents, "_SLICE_BYTES", 64 * 1024)
    names = [f"a{n}" for n in range(300)]
    graph = await weave(db, {**{name: [] for name in names}, "all": names})
    await settle(db, *zip(await graph.start(*names), map(returned, names), strict=True))
    kin = await kin_of(db, graph.ids["all"])
    assert {name: one.result for name, one in kin.parents.items()} == {
        name: f'"{name}"' for name in names
    }


async def test_parents_come_in_the_order_of_depends_on(db: Database) -> None:
    names = ["c", "a", "d", "b"]
    graph = await weave(db, {**{name: [] for name in sorted(names)}, "all": names})
    await graph.end(*names)
    assert list((await kin_of(db, graph.ids["all"])).parents) == names
    first, second = await db.submit(2)
    asked = [ids.text(second).upper(), ids.text(first)]
    job = making.new_job(parents=(second, first), depends_on=tuple(asked))
    await db.submissions.store_graph(Submission([job]))
    await end(db, first, returned(1))
    await end(db, second, returned(2))
    assert list((await kin_of(db, job.id)).parents) == [ids.text(second), ids.text(first)]


async def test_a_parent_that_was_pruned_is_not_told_of(db: Database) -> None:
    plain, other = await db.submit(2)
    child = await depend(db, [plain, other])
    await end(db, plain, returned(1))
    await end(db, other, returned(2))
    for table in ("jobs", "job_ended"):
        await db.session.execute(f"DELETE FROM {table} WHERE job_id = $1", plain)
    assert list((await kin_of(db, child)).parents) == [ids.text(other)]


async def test_names_are_looked_up_in_one_workflow(db: Database) -> None:
    one, _other = await weave(db, {"a": [], "b": []}), await weave(db, {"a": []})
    found = await Parents(db.postgres, MIB).ids_of(one.id, ["a", "z"])
    assert found == {"a": one.ids["a"]}


async def test_nobody_is_told_nothing(db: Database) -> None:
    assert await Parents(db.postgres, MIB).of([]) == {}
    stranger = making.started(graph_id=making.job_id())
    assert await Parents(db.postgres, MIB).of([stranger]) == {stranger.id: Kin()}
