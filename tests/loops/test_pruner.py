"""The pruner's steps: what goes, how much at once, how long it rests, and that others go on."""

import asyncio
import re

import pytest

from penstock.domain.attempt import CANCELLED
from penstock.domain.defaults import Book, Layer
from penstock.domain.errors import StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.workflow import LOOSE
from penstock.loops.pruner import Pruner
from penstock.settings import Retention as RetentionSettings
from penstock.settings.values import KEPT_MIN_S
from penstock.store import queries
from penstock.store.retention import Retention
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.still import Still
from tests.support.weaving import Woven, settle, weave

DAY_S = 86_400.0
AGED = (
    "UPDATE job_ended SET finished_at = finished_at - make_interval(secs => $2) WHERE job_id = $1"
)


def pruner(still: Still, **settings: int) -> Pruner:
    return Pruner(
        Retention(still.rooms.postgres), RetentionSettings(**settings), still.rooms.metrics
    )


async def ended(still: Still, age_s: float, **fields: object) -> dict[State, JobId]:
    """One job of each state that a job can end in here."""
    runs = await still.start(3, **fields)
    await still.settle((runs[0], SUCCESS), (runs[1], FINAL_FAILURE), (runs[2], CANCELLED))
    ids = [run.id for run in runs]
    for id_ in ids:
        await still.db.session.execute(AGED, id_, age_s)
    return dict(zip((State.SUCCEEDED, State.DEAD, State.CANCELLED), ids, strict=True))


async def over(still: Still, age_s: float) -> Woven:
    """A workflow that ended so long ago."""
    woven = await weave(still.db, {"a": (), "b": ("a",)})
    await woven.end("a")
    await woven.end("b")
    await still.db.session.execute(
        "UPDATE workflows SET finished_at = finished_at - make_interval(secs => $2)"
        " WHERE workflow_id = $1",
        *(woven.id, age_s),
    )
    return woven


async def there(still: Still, ids: dict[State, JobId]) -> set[State]:
    return {state for state, id_ in ids.items() if await still.db.reads.job(id_) is not None}


async def test_each_state_is_kept_for_its_own_time(still: Still) -> None:
    week_old, month_old = await ended(still, 8 * DAY_S), await ended(still, 31 * DAY_S)
    assert await still.engine.pruner.step() > 10, "nothing is left to do"
    assert await there(still, week_old) == {State.DEAD}
    assert await there(still, month_old) == set()
    pruned = {state: still.metric("jobs_pruned_total", state=state) for state in State}
    assert {state: n for state, n in pruned.items() if n} == {
        State.SUCCEEDED: 2,
        State.DEAD: 1,
        State.CANCELLED: 2,
    }


async def test_nothing_goes_where_the_time_is_0(still: Still) -> None:
    ids = await ended(still, 3650 * DAY_S)
    await pruner(still, dead_s=0, succeeded_s=0).step()
    assert await there(still, ids) == {State.DEAD, State.SUCCEEDED}


async def test_kinds_and_queues_that_are_kept_for_less_go_before_others(still: Still) -> None:
    insert = (
        "INSERT INTO job_ended SELECT (lpad(to_hex((1000 * (extract(epoch FROM now()) - 7200))"
        "::bigint), 12, '0') || substr(replace(gen_random_uuid()::text, '-', ''), 13))::uuid,"
        " q, k, 'dead', 1, 0, 0, NULL, NULL, NULL, now() - interval '2 hours'"
        " FROM unnest($1::text[], $2::text[]) l(q, k), generate_series(1, 150)"
    )
    await still.db.session.execute(insert, ["mail", "mail", "bills"], ["echo", "fail", "echo"])
    one = pruner(still)
    assert await one.step() > 10, "all are kept for longer"
    layers = {"mail": Layer(kept_s={State.DEAD: 3600.0, State.SUCCEEDED: 60.0})}
    kinds = {"fail": Layer(kept_s={State.DEAD: 86_400.0})}
    one.use(RetentionSettings(), Book(kinds=kinds, queues=layers))
    while await one.step() < 5:
        pass
    left = await still.db.session.fetch("SELECT queue, kind, count(*) FROM job_ended GROUP BY 1, 2")
    assert {tuple(row) for row in left} == {("mail", "fail", 150), ("bills", "echo", 150)}
    assert still.metric("jobs_pruned_total", state="dead") == 150


async def test_workflows_and_loose_jobs_go_by_their_own_time(still: Still) -> None:
    old, young = await over(still, 31 * DAY_S), await over(still, 29 * DAY_S)
    parent, child = await still.db.submit(), await still.db.submit()
    await still.db.session.execute(
        "UPDATE job_due SET graph_id = $1 WHERE job_id = ANY($2)", LOOSE, [*parent, *child]
    )
    runs = await still.db.jobs.start([*parent, *child], await still.db.worker())
    await settle(still.db, *((run, SUCCESS) for run in runs))
    await still.db.session.execute(AGED, parent[0], 8 * DAY_S)
    one = pruner(still)
    while await one.step() < 10:
        continue
    assert await still.db.places([*old.ids.values(), *parent]) == [None] * 3
    assert await still.db.places([*young.ids.values(), *child]) == ["succeeded"] * 3
    assert still.metric("workflows_pruned_total") == 1
    assert still.metric("jobs_pruned_total", state="succeeded") == 3
    await still.db.session.execute("UPDATE workflows SET finished_at = '1999-12-31'")
    await pruner(still, workflows_s=0).step()
    assert await still.db.count("workflows") == 1, "0 is never"


async def test_while_there_is_more_it_comes_back_soon_but_rests_between(still: Still) -> None:
    for _ in range(4):
        await ended(still, 8 * DAY_S)
    one = pruner(still, step_max=2)
    began = asyncio.get_running_loop().time()
    pause = await one.step()
    spent = asyncio.get_running_loop().time() - began
    assert spent * 2 < pause < 5, "it takes a fourth of the time"
    assert await still.db.count("jobs") == 12 - 4
    assert await one.step() < 5
    assert await one.step() > 10
    assert await still.db.count("jobs") == 4, "the dead are kept longer"


async def test_it_takes_more_at_once_while_that_is_quick(still: Still) -> None:
    await still.db.session.execute(
        "INSERT INTO job_ended SELECT gen_random_uuid(), 'q', 'echo', 'succeeded', 1, 0, 0, NULL,"
        " NULL, NULL, now() - interval '9 days' FROM generate_series(1, 1000)"
    )
    one, counts = pruner(still, step_max=400), []
    while await one.step() < 5:
        counts.append(1000 - await still.db.count("job_ended"))
    assert counts[:3] == [100, 300, 700], "100, then 200, then 400 and no more"
    assert await still.db.count("job_ended") == 0


async def test_a_step_that_takes_too_long_is_halved_until_it_fits(still: Still) -> None:
    """One job may have thousands of log lines: what never fits in time would never be deleted."""
    await still.db.session.execute(
        "INSERT INTO job_ended SELECT gen_random_uuid(), 'q', 'echo', 'succeeded', 1, 0, 0, NULL,"
        " NULL, NULL, now() - interval '9 days' + n * interval '1 s' FROM generate_series(1, 200) n"
    )
    the_60th = "SELECT job_id FROM job_ended ORDER BY finished_at OFFSET 59 LIMIT 1"
    id_ = await still.db.session.fetchval(the_60th)
    await still.db.session.execute("INSERT INTO job_logs VALUES ($1, 1, 1, now(), 'info', '')", id_)
    one = pruner(still)
    async with still.db.session.transaction():
        await still.db.session.execute("SELECT FROM job_logs WHERE job_id = $1 FOR UPDATE", id_)
        with pytest.raises(StoreUnavailable):
            await one.step()  # PostgreSQL ends it when it has waited for 2 s
        assert await still.db.count("job_ended") == 200
        await one.step()
        assert await still.db.count("job_ended") == 150
    while await one.step() < 5:
        pass
    assert await still.db.count("job_ended") == 0


async def test_what_another_replica_held_is_looked_for_again(still: Still) -> None:
    ids = await ended(still, 8 * DAY_S)
    one = pruner(still)
    lock = "SELECT FROM job_ended WHERE job_id = $1 FOR UPDATE"
    async with still.db.session.transaction():
        await still.db.session.execute(lock, ids[State.SUCCEEDED])
        await one.step()
    assert await there(still, ids) == {State.SUCCEEDED, State.DEAD}
    await one.step()
    assert await there(still, ids) == {State.DEAD}


async def test_stored_answers_are_pruned_in_the_same_steps(still: Still) -> None:
    await still.db.session.execute(
        "INSERT INTO idempotency_keys SELECT gen_random_uuid(), '', now() - n * interval '1 hour',"
        " '{}', '{}' FROM generate_series(1, 48) n"
    )
    await pruner(still).step()
    assert await still.db.count("idempotency_keys") == 23, "those of the last 24 hours"


async def test_the_pruner_runs_where_the_scheduler_does(still: Still) -> None:
    assert "pruner" in [loop.name for loop in still.engine.loops]


async def test_what_is_slow_of_one_state_is_not_hurried_by_another(still: Still) -> None:
    """A day's stored answers go quickly, jobs with thousands of lines do not."""
    one = pruner(still)

    async def slow(rows: int) -> int:
        await asyncio.sleep(0.21)
        return rows

    async def quick(rows: int) -> int:
        return rows

    asked = []
    for _ in range(3):
        await one._bounded("answers", quick)
        asked.append(one._rows.get(State.DEAD, 100))
        await one._bounded(State.DEAD, slow)
    assert asked == [100, 50, 25]


def test_late_lines_are_refused_well_before_their_job_may_go() -> None:
    late_s = re.findall(r"interval '(\d+) s'", queries.load()["add_logs"])
    assert [2 * int(seconds) for seconds in late_s] == [KEPT_MIN_S]
