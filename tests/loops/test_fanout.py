"""Jobs that handlers submit: stored before their attempt is settled, once, and all or none."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from penstock.domain import ids
from penstock.domain.attempt import LOST
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import Started
from penstock.domain.submission import Accepted, Submission
from penstock.domain.workflow import NewWorkflow
from penstock.loops.settle import Outgoing
from penstock.settings import Settings
from tests.support import making
from tests.support.gates import let_go
from tests.support.making import SUCCESS
from tests.support.still import Still, changed, standing
from tests.support.waiting import eventually
from tests.support.weaving import Woven, new_jobs


def text(value: Any) -> str:
    return orjson.dumps(value).decode()


async def ended(still: Still, id_: JobId) -> tuple[str, Any]:
    """Runs what is in line until this job is over: its state, and its result or error."""

    async def look() -> bool:
        await still.engine.worker.step()
        return (await still.db.places([id_]))[0] in ("succeeded", "dead", "cancelled")

    await eventually(look, "it is over", every_s=0.01)
    row = await still.db.row("job_ended", id_)
    return row["state"], orjson.loads(row["result"] or row["error"])


async def fanned(still: Still, *jobs: dict[str, Any], kind: str = "fan", **fields: Any) -> Any:
    """A job that submits these: its id, its state, and its result or error."""
    (id_,) = await still.submit(kind=kind, payload=text({"jobs": jobs}), **fields)
    return id_, *await ended(still, id_)


async def member(still: Still, *jobs: dict[str, Any], kind: str = "fan") -> Woven:
    """A workflow of one job, `fan`, which submits these."""
    workflow = NewWorkflow(making.job_id(), "fanning out")
    (job,) = new_jobs({"fan": []}, workflow.id)
    job = replace(job, kind=kind, payload=text({"jobs": jobs}))
    await still.engine.submitter.submit(Submission([job], workflow=workflow))
    await still.engine.enqueuer.drained()
    return Woven(still.db, workflow.id, {"fan": job.id})


async def names(still: Still, workflow: JobId) -> dict[str, bytes]:
    rows = await still.db.session.fetch(
        "SELECT name, job_id FROM jobs WHERE workflow_id = $1", workflow
    )
    return {row["name"]: row["job_id"] for row in rows}


@pytest.mark.parametrize("kind", ["fan", "fan-thread"])
async def test_what_a_handler_submits_is_stored_and_runs(still: Still, kind: str) -> None:
    id_, state, result = await fanned(
        still,
        {"kind": "echo", "payload": [1], "tags": ["a"]},
        {"kind": "echo", "queue": "mail", "priority": 9},
        kind=kind,
        created_by="ann",
    )
    first, second = (ids.nth_of(id_, n) for n in (1, 2))
    assert (state, result) == ("succeeded", {"ids": [ids.text(first), ids.text(second)]})
    row = await still.db.row("jobs", first)
    assert (row["payload"], row["tags"], row["created_by"]) == ("[1]", ["a"], "ann")
    row = await still.db.row("jobs", second)
    assert (row["queue"], row["priority"], row["max_attempts"]) == ("mail", 9, 5)
    assert await ended(still, first) == ("succeeded", [1])


async def test_a_handler_that_fails_submits_nothing(still: Still) -> None:
    payload = text({"jobs": [{"kind": "echo"}], "fails": True})
    (id_,) = await still.submit(kind="fan", payload=payload)
    assert (await ended(still, id_))[0] == "dead"
    assert await still.db.count("jobs") == 1


async def run_again(still: Still, job: Started, *children: bytes) -> Started:
    """Stores these, loses the attempt before it is settled, and starts the job again."""
    stored, fanout = asyncio.Event(), still.engine.fanout
    passes_on, fanout.on_stored = fanout.on_stored, lambda _outgoing: stored.set()
    fanout.put(Outgoing(job, SUCCESS, children=children))
    await asyncio.wait_for(stored.wait(), 5)
    fanout.on_stored = passes_on
    await still.settle((job, LOST))
    (again,) = await still.engine.jobs.start([job.id], still.engine.me.worker)
    return again


async def test_a_second_run_stores_nothing_twice(still: Still) -> None:
    (job,) = await still.start(kind="fan")
    again = await run_again(still, job, b'{"kind":"echo"}', b'{"kind":"echo"}')
    assert await still.db.count("jobs") == 3
    other = [b'{"kind":"gated"}', b'{"kind":"echo"}', b'{"kind":"echo"}']
    await still.engine.settler.settle([Outgoing(again, SUCCESS, children=other)])
    assert await still.db.count("jobs") == 4
    kinds = [(await still.db.row("jobs", ids.nth_of(job.id, n)))["kind"] for n in (1, 2, 3)]
    assert kinds == ["echo"] * 3, "the first is there already, whatever it would be now"
    assert await still.db.places([job.id]) == ["succeeded"]


async def test_a_second_run_finds_its_own_unique_keys_though_others_have_them_now(
    still: Still,
) -> None:
    (job,) = await still.start(kind="fan")
    child = b'{"kind":"echo","unique_key":"k"}'
    again = await run_again(still, job, child)
    assert (await ended(still, ids.nth_of(job.id, 1)))[0] == "succeeded"
    await still.submit(unique_key="k", kind="gated")
    await still.engine.settler.settle([Outgoing(again, SUCCESS, children=[child])])
    assert await still.db.places([job.id]) == ["succeeded"]


async def test_an_attempt_that_was_taken_over_submits_nothing(still: Still) -> None:
    (job,) = await still.start(kind="fan")
    await still.settle((job, LOST))
    child = b'{"kind":"echo"}'
    await still.engine.settler.settle([Outgoing(job, SUCCESS, children=[child])])
    assert await still.db.count("jobs") == 1
    assert await still.db.places([job.id]) == ["ready"]


async def test_jobs_of_a_workflow_join_it_and_name_one_another(still: Still) -> None:
    woven = await member(
        still,
        {"kind": "echo", "name": "one"},
        {"kind": "echo"},
        {"kind": "seen", "name": "all", "depends_on": ["one", "fan/echo-2", "fan"]},
    )
    state, result = await ended(still, woven.ids["fan"])
    assert state == "succeeded", result
    assert set(await names(still, woven.id)) == {"fan", "one", "fan/echo-2", "all"}
    state, seen = await ended(still, ids.nth_of(woven.ids["fan"], 3))
    assert seen["parents"] == {
        "fan": ["succeeded", result],
        "one": ["succeeded", None],
        "fan/echo-2": ["succeeded", None],
    }
    row = await woven.row()
    assert (row["total"], row["state"]) == (4, "succeeded")


async def test_a_workflow_that_was_halted_meanwhile_takes_no_more(still: Still) -> None:
    woven = await member(still, {"kind": "echo"}, kind="fan-gated")
    await still.engine.worker.step()
    await still.db.session.execute("UPDATE workflows SET halt = 'stop'")
    let_go(woven.ids["fan"])
    assert (await ended(still, woven.ids["fan"]))[0] == "succeeded"
    assert list(await names(still, woven.id)) == ["fan"]
    lines = await still.db.session.fetch("SELECT level, message FROM job_logs")
    assert [line["level"] for line in lines] == ["warning"]
    assert lines[0]["message"].startswith("dropped 1 submitted job: the workflow is running; ")


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"kind": "No Such"}, "/jobs/1/kind"),
        ({"kind": "sleep", "payload": {"seconds": "x"}}, "/jobs/1/payload/seconds"),
        ({"kind": "echo", "priority": 10}, "/jobs/1/priority"),
        ({"kind": "echo", "colour": 1}, "/jobs/1/colour: is not a known field"),
        (
            {"kind": "echo", "depends_on": ["01939f3e-7a00-7000-8000-0000000000aa"]},
            "job 2 (echo): it depends on 01939f3e-7a00-7000-8000-0000000000aa, and there is no su",
        ),
        ({"kind": "echo", "unique_key": "taken"}, "has its unique_key"),
        ({"kind": "echo", "unique_key": "twice"}, "/jobs/1/unique_key"),
    ],
)
async def test_one_that_is_refused_refuses_all_and_fails_the_attempt_for_good(
    still: Still, job: dict[str, Any], words: str
) -> None:
    await still.submit(unique_key="taken", kind="gated")
    id_, state, error = await fanned(still, {"kind": "echo", "unique_key": "twice"}, job)
    assert (state, error["type"]) == ("dead", "children-refused")
    assert error["message"].startswith("the jobs that it submitted were refused: ")
    assert words in error["message"]
    assert await still.db.count("jobs") == 2
    assert await still.outcomes(id_) == ["failed"]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"kind": "echo", "name": "fan"}, "job 1 (echo): the workflow has a job named 'fan'"),
        ({"kind": "echo", "depends_on": ["no"]}, "job 1: the workflow has no job 'no' to depend"),
        ({"kind": "echo", "name": "me", "depends_on": ["me"]}, "is the job itself"),
    ],
)
async def test_names_that_do_not_fit_the_workflow_are_refused(
    still: Still, job: dict[str, Any], words: str
) -> None:
    woven = await member(still, job)
    state, error = await ended(still, woven.ids["fan"])
    assert (state, error["type"]) == ("dead", "children-refused")
    assert words in error["message"]
    assert list(await names(still, woven.id)) == ["fan"]


async def test_a_reader_that_breaks_fails_that_job_alone(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_job: Started, _jobs: Sequence[Any]) -> Submission:
        raise KeyError("a bug")

    monkeypatch.setattr(still.engine.fanout, "read", broken)
    _, state, error = await fanned(still, {"kind": "echo"})
    assert (state, error["type"]) == ("dead", "children-refused")
    assert "KeyError" in error["details"]


async def test_too_many_queues_refuse_them(
    still_settings: Settings, dsn: str, redis_url: str
) -> None:
    async with standing(changed(still_settings, queue={"count_max": 1}), dsn, redis_url) as still:
        _, state, error = await fanned(still, {"kind": "echo", "queue": "one-more"})
        assert (state, error["type"]) == ("dead", "children-refused")
        assert "queue" in error["message"]


# Many, and outages.


async def test_ten_thousand_are_stored_at_once_and_in_order(still: Still) -> None:
    (job,) = await still.start(kind="fan")
    children = [b'{"kind":"gated","payload":%d}' % n for n in range(10_000)]
    await still.engine.settler.settle([Outgoing(job, SUCCESS, children=children)])
    assert await still.db.count("jobs") == 10_001
    assert (await still.db.row("jobs", ids.nth_of(job.id, 10_000)))["payload"] == "9999"


async def test_nobody_else_waits_for_them(still: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, gate = still.engine.submitter.submit, asyncio.Event()

    async def held_up(submission: Submission, *, again: bool = False) -> Accepted:
        await gate.wait()
        return await submit(submission, again=again)

    (fan, plain) = await still.start(2, kind="fan")
    monkeypatch.setattr(still.engine.submitter, "submit", held_up)
    settler = still.engine.settler
    settler.put(Outgoing(fan, SUCCESS, children=[b'{"kind":"echo"}']))
    await settler.settle([Outgoing(plain, SUCCESS)])
    assert settler.unsettled == 1
    assert settler.unsettled_bytes > 0
    drained = asyncio.create_task(settler.drained())
    await asyncio.sleep(0)
    assert not drained.done(), "a drain waits for them"
    assert await still.db.places([fan.id]) == ["running"]
    gate.set()
    await asyncio.wait_for(drained, 5)
    assert await still.db.places([fan.id, plain.id]) == ["succeeded", "succeeded"]
    assert (settler.unsettled, settler.unsettled_bytes) == (0, 0)


async def test_they_are_sent_until_postgres_answers(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, failures = still.engine.submitter.submit, 5

    async def shaky(submission: Submission, *, again: bool = False) -> Accepted:
        nonlocal failures
        failures -= 1
        if failures % 2:  # it was stored, and nobody heard
            await submit(submission, again=again)
        if failures > 0:
            raise StoreUnavailable("as asked", unknown=True)
        return await submit(submission, again=again)

    (job,) = await still.start(kind="fan")
    monkeypatch.setattr(still.engine.submitter, "submit", shaky)
    children = [b'{"kind":"echo"}', b'{"kind":"echo","unique_key":"k"}']
    await still.engine.settler.settle([Outgoing(job, SUCCESS, children=children)])
    assert await still.db.count("jobs") == 3
    assert await still.db.places([job.id]) == ["succeeded"]


async def test_a_child_may_depend_on_the_job_that_submits_it(still: Still) -> None:
    (job,) = await still.start(kind="fan")
    child = text({"kind": "seen", "depends_on": [ids.text(job.id)]}).encode()
    await still.engine.settler.settle([Outgoing(job, SUCCESS, children=[child])])
    state, seen = await ended(still, ids.nth_of(job.id, 1))
    assert state == "succeeded"
    assert seen["parents"] == {ids.text(job.id): ["succeeded", {"answer": 42}]}


def test_the_size_of_what_waits_counts_them() -> None:
    one = Outgoing(making.started(), SUCCESS, children=[b"x" * 1000])
    assert one.size >= 1000
