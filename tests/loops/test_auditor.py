"""The auditor's steps: what they tell, what they mend, whose turn it is, how long they rest."""

import math

import structlog

from penstock.domain.ids import JobId, WorkerId
from penstock.loops import auditor
from penstock.loops.auditor import RULES, Auditor
from penstock.store.audit import Audit
from penstock.telemetry.metrics import Metrics
from tests.support.making import SUCCESS
from tests.support.still import Still


async def audited(still: Still, *, passes: int = 1) -> dict[str, float]:
    """What the gauges say after so many whole passes; rules without violations are left out."""
    one = still.engine.auditor
    for _ in range(passes):
        while await one.step() < 50:
            continue
    found = {rule: still.metric("audit_violations", rule=rule) for rule in RULES}
    return {rule: count for rule, count in found.items() if count}


async def ended(still: Still) -> JobId:
    (run,) = await still.start()
    await still.settle((run, SUCCESS))
    return run.id


async def test_where_all_is_well_nothing_is_found(still: Still) -> None:
    await still.start(3)
    await still.submit(3, delay_s=60.0)
    await ended(still)
    before = still.metric("audit_age_seconds")
    assert still.metric("audit_age_seconds") > before, "it grows by itself"
    assert await audited(still, passes=2) == {}
    assert still.metric("audit_age_seconds") < before + 1


async def test_a_job_in_no_place_is_told_until_it_is_mended(still: Still) -> None:
    id_ = await ended(still)
    await still.db.session.execute("DELETE FROM job_ended WHERE job_id = $1", id_)
    with structlog.testing.capture_logs() as lines:
        assert await audited(still) == {"no_place": 1, "counts": 1}
    told = {line["rule"]: line for line in lines if line["event"] == "audit_found"}
    assert told.keys() == {"no_place", "counts"}
    assert told["no_place"]["log_level"] == "error"
    assert len(told["no_place"]["such_as"]) == 1
    await still.db.session.execute("DELETE FROM jobs")
    await still.db.session.execute("DELETE FROM queue_counts")
    assert await audited(still) == {}


async def test_a_job_in_two_places_and_a_row_of_no_job_are_told(still: Still) -> None:
    (run,) = await still.start()
    (stray,) = await still.submit()
    await still.db.session.execute("DELETE FROM jobs WHERE job_id = $1", stray)
    await still.db.session.execute(
        "INSERT INTO job_due SELECT job_id, queue, kind, priority, ready_at, attempt, failures,"
        " losses FROM job_running WHERE job_id = $1",
        run.id,
    )
    assert await audited(still) == {"two_places": 1, "no_job": 1}


async def test_a_key_of_no_live_job_is_told_and_freed(still: Still) -> None:
    id_ = await ended(still)
    await still.db.session.execute(
        "INSERT INTO job_unique VALUES (job_unique_id('default', 'k'), $1)", id_
    )
    assert await audited(still) == {"leaked_key": 1}
    assert still.metric("audit_mended_total", rule="leaked_key") == 1
    assert await audited(still) == {}


async def test_an_attempt_that_nobody_reaps_is_told_at_the_second_look(still: Still) -> None:
    (run,) = await still.start()
    await still.db.workers.leave(WorkerId(run.worker))
    assert await audited(still) == {}, "the reaper may be on its way"
    assert await audited(still) == {"orphaned": 1}
    await still.engine.reaper.step()
    assert await audited(still) == {}


async def test_a_job_that_nobody_starts_is_told_at_the_second_look(still: Still) -> None:
    await still.submit()
    await still.db.session.execute("UPDATE job_due SET ready_at = now() - interval '90 s'")
    assert await audited(still) == {}
    assert await audited(still) == {"stuck": 1}
    assert await audited(still) == {"stuck": 1}


async def test_many_jobs_are_walked_page_by_page_with_rests_between(still: Still) -> None:
    await still.submit(2500)
    one, pauses = still.engine.auditor, []
    while (pause := await one.step()) < 50:
        pauses.append(pause)
    assert len(pauses) == 2, "2,500 ids are three pages"
    assert all(pause > 0.05 for pause in pauses), "a rest is 199 times the work"
    assert pause > 50, "and then until the next audit is due"


async def test_one_replica_audits_and_another_takes_over_when_its_lock_is_gone(
    still: Still,
) -> None:
    metrics = Metrics()
    other = Auditor(Audit(still.rooms.postgres), still.redis.shelves.lock, metrics, every_s=60.0)
    id_ = await ended(still)
    await still.db.session.execute("DELETE FROM job_ended WHERE job_id = $1", id_)
    assert await audited(still) == {"no_place": 1, "counts": 1}
    assert await other.step() == 60.0
    assert metrics.registry.get_sample_value("penstock_audit_violations", {"rule": "no_place"}) == 0
    await still.redis.flush()
    await other.step()
    assert metrics.registry.get_sample_value("penstock_audit_violations", {"rule": "no_place"}) == 1
    assert await still.engine.auditor.step() == 60.0, "now the other one does it"
    assert still.metric("audit_violations", rule="no_place") == 0, "and tells when it is mended"


async def test_0_turns_it_off(still: Still) -> None:
    async def never(_name: str, _ttl_s: float) -> bool:
        raise AssertionError

    metrics = Metrics()
    metrics.leader("audit").set(1)  # before the settings changed
    off = Auditor(Audit(still.rooms.postgres), never, metrics, every_s=0)
    assert await off.step() == auditor._OFF_S
    assert metrics.registry.get_sample_value("penstock_leader", {"task": "audit"}) == 0
    assert math.isfinite(auditor._OFF_S)


async def test_the_auditor_runs_where_the_scheduler_does(still: Still) -> None:
    assert "auditor" in [loop.name for loop in still.engine.loops]
