"""What may be submitted as a workflow, what depends on what, and how bad fields are named."""

from typing import Any

import orjson
import pytest

from penstock.api.batches import listed, take_all
from penstock.api.blame import head_faults
from penstock.api.door import Door
from penstock.api.job_body import MEMBER
from penstock.api.linking import linked
from penstock.api.problems import Problem
from penstock.api.submissions import Intake, Origin
from penstock.api.workflow_body import HEAD
from penstock.domain.graph import JOBS_MAX
from penstock.domain.ids import JobId, text
from penstock.domain.job import NewJob
from penstock.store.workflow_reads import Member
from tests.api.conftest import NOW_MS
from tests.support import making

FLOW = making.job_id()
LONG = "x" * 256


def intake(door: Door) -> Intake:
    return Intake(door.recipe, Origin("ada", None, False, FLOW), NOW_MS, MEMBER)


async def take(door: Door, *jobs: Any, there: dict[str, Member] | None = None) -> list[NewJob]:
    taker = intake(door)
    return await linked(await take_all(taker, list(jobs), door.pace), there or {}, door.pace)


async def faults(door: Door, *jobs: Any) -> dict[str, str]:
    with pytest.raises(Problem) as caught:
        await take(door, *jobs)
    return {fault.pointer: fault.detail for fault in caught.value.faults}


def job(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    parents = {"depends_on": list(depends_on)} if depends_on else {}
    return {"name": name, "kind": "echo", **parents, **fields}


def head(body: Any) -> dict[str, str]:
    with pytest.raises(Problem) as caught:
        listed(body, JOBS_MAX, head_faults(body, HEAD))
    return {fault.pointer: fault.detail for fault in caught.value.faults}


async def test_names_become_ids(door: Door) -> None:
    a, b, c = await take(door, job("a"), job("b", "a", "c"), job("c", "a", run_if="any_failed"))
    assert (a.parents, b.parents, c.parents) == ((), (a.id, c.id), (a.id,))
    assert (b.depends_on, c.run_if, b.run_if) == (("a", "c"), "any_failed", "all_succeeded")
    assert [one.workflow_id for one in (a, b, c)] == [FLOW] * 3
    old = making.job_id()
    (d,) = await take(door, job("d", "old"), there={"old": Member(old, False)})
    assert d.parents == (old,)


def test_what_is_wrong_with_a_workflow_itself_is_named_at_once() -> None:
    assert head({}) == {"/name": "is required", "/jobs": "is required"}
    assert head({"name": "", "on_failure": "explode", "jobs": {}, "id": 1, "colour": 2}) == {
        "/name": "must have at least 1 character",
        "/on_failure": "must be 'continue' or 'stop'",
        "/id": "is set by the server",
        "/colour": "is not a known field",
        "/jobs": "must be a list",
    }
    assert head({"name": LONG, "jobs": []}) == {
        "/name": "must have at most 255 characters",
        "/jobs": f"must have 1 to {JOBS_MAX} jobs, has 0",
    }
    assert head({"name": "a\nb", "jobs": [1]}) == {"/name": "must have no control characters"}
    body = {"name": "w", "jobs": [1], "concurrency_key": "k"}
    with pytest.raises(Problem) as caught:
        listed(body, JOBS_MAX, head_faults(body, HEAD))
    assert caught.value.slug == "not-supported-yet"
    assert len(head({str(n): n for n in range(1000)} | {"jobs": [1]})) <= 102


async def test_what_is_wrong_with_its_jobs_is_named_at_once(door: Door) -> None:
    found = await faults(
        door,
        7,
        {"kind": "echo"},
        job("c", run_if="all_failed"),
        job("d", "a", on_conflict="return", unique_key="k"),
        job("e", depends_on=["a", 7, 8]),
        job("f", depends_on=["a"], run_if="never", workflow_id=1),
        job(LONG, depends_on=[]),
        job("g", depends_on="a"),
        job("h", depends_on=["x"] * 10_001),
        job("i", expires_at="2020-01-01T00:00:00Z"),
        job("j", run_if="all_failed", depends_on=[]),
    )
    assert found == {
        "/jobs/0": "must be an object",
        "/jobs/1/name": "is required",
        "/jobs/2/run_if": "needs depends_on",
        "/jobs/3/on_conflict": "must be 'reject'",
        "/jobs/4/depends_on/1": "must be a string",
        "/jobs/5/run_if": "must be 'all_succeeded', 'all_failed', 'all_finished', "
        "'any_succeeded', 'any_failed', 'none_failed', 'none_skipped' or 'all_skipped'",
        "/jobs/5/workflow_id": "is set by the server",
        "/jobs/6/name": "must have at most 255 characters",
        "/jobs/7/depends_on": "must be a list",
        "/jobs/8/depends_on": "must have at most 10000 items",
        "/jobs/9/expires_at": "must be later than when the job may run first",
        "/jobs/10/run_if": "needs depends_on",
    }


async def test_faults_of_the_graph_are_refused_with_pointers(door: Door) -> None:
    assert await faults(door, job("a"), job("a")) == {"/jobs/1/name": "is the name of /jobs/0 too"}
    assert await faults(door, job("a", "b"), job("b", "a")) == {
        "/jobs/0/depends_on/0": "makes a cycle: a -> b -> a"
    }
    many = [job(f"n{i}", "nobody") for i in range(600)]
    assert len(await faults(door, *many)) == 100  # also of what is looked at in a thread


async def test_references_name_parents_and_are_left_to_the_run(door: Door) -> None:
    ref = {"$result": "a", "pointer": "/x/0"}
    await take(door, job("a"), job("b", "a", kind="picky", payload=[ref]))
    found = await faults(
        door,
        job("a"),
        job("b", "a", payload={"x": {"$result": "c"}, "y": [{"$result": 1}]}),
        job("c", "a", payload={"$result": "a", "more": 1}),
        job("d", "a", payload={"$result": "a", "pointer": "x"}),
        job("e", "a", kind="picky", payload={}),
        job("f", payload={"$result": "a"}),  # a depends_on that was forgotten
    )
    assert found == {
        "/jobs/5/payload/$result": "'a' is not in depends_on",
        "/jobs/1/payload/x/$result": "'c' is not in depends_on",
        "/jobs/1/payload/y/0": "$result must be the name of a parent",
        "/jobs/2/payload": "an object with $result may have only pointer besides",
        "/jobs/3/payload": "a JSON Pointer is empty or begins with /",
        "/jobs/4/payload/url": "is required",
    }


async def test_a_workflow_in_a_payload_is_held_to_the_same(door: Door) -> None:
    good = {"jobs": [job("x"), job("y", "x", payload={"$result": "x"})], "on_failure": "stop"}
    (taken,) = await take(door, job("a", kind="workflow", payload=good))
    assert taken.payload == orjson.dumps(good).decode()
    bad = {
        "name": "",
        "notify": [],
        "jobs": [job("x", "y"), {"name": "y", "kind": "picky", "priority": 11}],
    }
    assert await faults(door, job("a", kind="workflow", payload=bad)) == {
        "/jobs/0/payload/name": "must have at least 1 character",
        "/jobs/0/payload/notify": "is not a known field",
    }
    del bad["name"], bad["notify"]
    assert await faults(door, job("a", kind="workflow", payload=bad)) == {
        "/jobs/0/payload/jobs/1/priority": "must be at most 9",
        "/jobs/0/payload/jobs/1/payload/url": "is required",
    }
    cycle = {"jobs": [job("x", "y"), job("y", "x")]}
    assert await faults(door, job("a", kind="workflow", payload=cycle)) == {
        "/jobs/0/payload/jobs/0/depends_on/0": "makes a cycle: x -> y -> x"
    }
    twins = {"jobs": [job("x", unique_key="k"), job("y", unique_key="k")]}
    assert await faults(door, job("a", kind="workflow", payload=twins)) == {
        "/jobs/0/payload/jobs/1/unique_key": "is that of /jobs/0 too"
    }
    nothing: list[Any] = [None, 7, [], "x"]
    for none in nothing:
        assert await faults(door, job("a", kind="workflow", payload=none)) == {
            "/jobs/0/payload": "must be a workflow, as POST /v1/workflows takes it"
        }
    assert await faults(door, job("a", kind="workflow", payload={"jobs": []})) == {
        "/jobs/0/payload/jobs": f"must have 1 to {JOBS_MAX} jobs, has 0"
    }


async def test_workflows_nest_eight_deep(door: Door) -> None:
    def nested(depth: int) -> Any:
        inner = job("x") if depth == 1 else job("x", kind="workflow", payload=nested(depth - 1))
        return {"jobs": [inner]}

    await take(door, job("a", kind="workflow", payload=nested(7)))
    found = await faults(door, job("a", kind="workflow", payload=nested(8)))
    assert list(found) == ["/jobs/0/payload" + "/jobs/0/payload" * 7]


async def test_what_a_nested_workflow_refers_to(door: Door) -> None:
    """Its roots refer to the parents of the job that it is in, its children to their own."""
    inner = {
        "jobs": [
            job("root", payload={"$result": "a"}),
            job("picky", kind="picky", payload={"$result": "a"}),
            job("child", "root", payload={"$result": "root"}),
        ]
    }
    await take(door, job("a"), job("b", "a", kind="workflow", payload=inner))
    wrong = {
        "jobs": [job("root", payload={"$result": "b"}), job("c", "root", payload={"$result": "a"})]
    }
    assert await faults(door, job("a"), job("b", "a", kind="workflow", payload=wrong)) == {
        "/jobs/1/payload/jobs/0/payload/$result": "'b' is not in depends_on",
        "/jobs/1/payload/jobs/1/payload/$result": "'a' is not in depends_on",
    }
    beside = {
        "jobs": [
            job("a", payload={"$result": "a"}),  # its own name can mean no job beside it
            job("b", payload={"$result": "a"}),  # a depends_on that was forgotten
            job("c", kind="workflow", payload={"jobs": [job("x", payload={"$result": "a"})]}),
            job("d", "a", payload={"$result": "a"}),
        ]
    }
    assert await faults(door, job("a"), job("f", "a", kind="workflow", payload=beside)) == {
        "/jobs/1/payload/jobs/1/payload/$result": "'a' is not in depends_on",
        "/jobs/1/payload/jobs/2/payload/jobs/0/payload/$result": "'a' is not in depends_on",
    }
    for hidden in ({"jobs": {"$result": "a"}}, {"jobs": [{"$result": "a"}]}, {"$result": "a"}):
        found = await faults(door, job("a"), job("b", "a", kind="workflow", payload=hidden))
        assert any("payloads of a workflow's jobs" in told for told in found.values()), found


async def test_queues_of_nested_workflows_are_told(door: Door) -> None:
    deep = {"jobs": [job("x", queue="mail"), job("y")]}
    flow = {"jobs": [job("f", kind="workflow", queue="own", payload=deep)]}
    taker = intake(door)
    assert taker.take(job("a", kind="workflow", payload=flow), "/jobs/0")
    assert taker.inner_queues == {
        "own": "/jobs/0/payload/jobs/0/queue",
        "mail": "/jobs/0/payload/jobs/0/payload/jobs/0/queue",
        "default": "/jobs/0/payload/jobs/0/payload/jobs/1/queue",
    }


def loose(door: Door, **fields: Any) -> tuple[NewJob | None, dict[str, str]]:
    taker = Intake(door.recipe, Origin("ada", None, False), NOW_MS)
    taken = taker.take({"kind": "echo", **fields})
    return taken, {fault.pointer: fault.detail for fault in taker.faults}


def test_a_job_by_itself_depends_on_ids(door: Door) -> None:
    ids = [text(one) for one in making.job_ids(2)]
    taken, _ = loose(door, depends_on=[ids[0].upper(), ids[1]], run_if="any_failed")
    assert taken is not None
    assert taken.depends_on == tuple(ids)
    assert [text(one) for one in taken.parents] == ids
    plain, _ = loose(door, depends_on=[])
    assert plain is not None
    assert (plain.parents, plain.workflow_id) == ((), None)
    assert isinstance(plain.id, bytes)
    assert loose(door, depends_on=[ids[0], ids[0].upper()])[1] == {
        "/depends_on/1": "stands there twice"
    }
    assert loose(door, depends_on=["x"])[1] == {"/depends_on/0": "must be an id"}
    assert loose(door, depends_on=ids * 501)[1] == {"/depends_on": "must have at most 1000 items"}
    assert loose(door, run_if="all_failed")[1] == {"/run_if": "needs depends_on"}
    assert loose(door, name="x")[1] == {"/name": "is for jobs of workflows: see POST /v1/workflows"}
    found = loose(door, depends_on=ids, payload={"$result": text(JobId(bytes(16)))})[1]
    assert list(found) == ["/payload/$result"]
