"""A connection that dies between a COMMIT sent and its answer, and what else strikes there."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from penstock import chaos
from penstock.domain.effect import Channel, Effect, On, Rule, Wish, wishes_json
from penstock.domain.errors import StoreUnavailable
from penstock.domain.grouping import Grouping
from penstock.domain.job import State
from penstock.domain.submission import Submission
from penstock.domain.workflow import NewWorkflow
from penstock.store.deliveries import Deliveries
from penstock.store.effects import Effects
from penstock.store.groups import Groups
from penstock.store.jobs import ROWS_MAX
from penstock.store.nested import Nested
from penstock.store.retention import Retention
from penstock.store.rows import EPOCH
from tests.support import making, weaving
from tests.support.database import Database, settlement
from tests.support.making import FINAL_FAILURE, SUCCESS
from tests.support.waiting import eventually
from tests.support.weaving import weave

Call = Callable[[], Awaitable[object]]
ANSWERS = [name for name, one in chaos.POINTS.items() if one.cuts]


@pytest.fixture(autouse=True)
async def disarmed() -> AsyncIterator[None]:
    yield
    chaos.arm(None, "test")


async def _prepared(db: Database, point: str) -> tuple[Call, str]:
    """The call that passes the point, and a query that tells whether it was carried out."""
    jobs = making.new_jobs(ROWS_MAX + 1 if point == "after_commit_large" else 2)
    stored = f"SELECT count(*) = {len(jobs)} FROM jobs"
    match point:
        case "after_commit" | "after_commit_large":
            return lambda: db.submissions.store(jobs), stored
        case "after_commit_keyed":
            keyed = Submission(making.new_jobs(1, unique_key="k"))
            return lambda: db.submissions.store_keyed(
                [keyed]
            ), "SELECT count(*) = 1 FROM job_unique"
        case "after_start":
            ids, worker = await db.submit(2), await db.worker()
            return lambda: db.jobs.start(ids, worker), "SELECT count(*) = 2 FROM job_running"
        case "after_settle":
            batch = [settlement(job, SUCCESS) for job in await db.running(2)]
            return lambda: db.settle_all(batch), "SELECT count(*) = 2 FROM job_ended"
        case "after_cancel":
            (id_,) = await db.submit()
            return lambda: db.jobs.cancel_due(id_), "SELECT count(*) = 1 FROM job_ended"
        case "after_cancel_request":
            (job,) = await db.running()
            asked = "SELECT cancel_requested_at IS NOT NULL FROM job_running"
            return lambda: db.jobs.cancel_running(job.id), asked
        case "after_retry":
            (id_,) = await db.submit()
            await db.jobs.cancel_due(id_)
            return lambda: db.retry(id_), "SELECT count(*) = 1 FROM job_due"
        case "after_expire":
            await db.submit(ttl_s=0.0)
            return lambda: db.jobs.expire(10), "SELECT count(*) = 1 FROM job_ended"
        case "after_prune":
            (id_,) = await db.submit()
            await db.jobs.cancel_due(id_)
            old = (State.CANCELLED, 0.0, EPOCH, 10)
            return lambda: Retention(db.postgres).prune_ended(*old), "SELECT count(*) = 0 FROM jobs"
    small = ("after_claim_effects", "after_finish_effects", "after_send_again")
    others = {
        **dict.fromkeys(small, _prepared_effect),
        **dict.fromkeys(("after_replay_letters", "after_discard"), _prepared_letter),
        **dict.fromkeys(("after_join_groups", "after_fix_message"), _prepared_group),
        "after_change": _prepared_change,
    }
    return await others.get(point, _prepared_graph)(db, point)


async def _prepared_letter(db: Database, point: str) -> tuple[Call, str]:
    """The same for a dead letter."""
    (job,) = await db.running()
    await db.settle(job, FINAL_FAILURE)
    resolved = "SELECT resolution = '{}' FROM dead_letters"
    if point == "after_discard":
        return lambda: db.letters.discard(job.id, "ada"), resolved.format("discarded")
    replay = db.letters.replay_plain
    return lambda: replay([job.id], [0.0], "ada"), resolved.format("replayed")


async def _prepared_change(db: Database, _point: str) -> tuple[Call, str]:
    """The same for a small change."""
    paused = "SELECT coalesce(bool_or(paused), false) FROM queues"
    return lambda: db.queues.set_paused("mail", paused=True), paused


async def _prepared_effect(db: Database, point: str) -> tuple[Call, str]:
    """The same for the outbox, with one effect in it."""
    wish = Wish((On.CANCELLED,), Channel.WEBHOOK, "https://example.com/")
    (id_,) = await db.submit(notify=wishes_json([wish]))
    await db.jobs.cancel_due(id_)
    effects, lease = Effects(db.postgres), secrets.token_bytes(16)

    async def claim() -> list[Effect]:
        return await effects.claim(Channel.WEBHOOK, lease, [], (1, 1, 60.0))

    if point == "after_claim_effects":
        return claim, "SELECT tries = 1 FROM effects"
    (claimed,) = await claim()
    over = [(claimed.id, "delivered", None)]
    if point == "after_send_again":
        await effects.finish(lease, over)
        again = Deliveries(db.postgres, db.health).send_again
        return lambda: again(claimed.id), "SELECT count(*) = 1 FROM effects"
    return lambda: effects.finish(lease, over), "SELECT count(*) = 1 FROM deliveries"


async def _prepared_group(db: Database, point: str) -> tuple[Call, str]:
    """The same for a rule's group, of one effect."""
    wish = Wish((On.CANCELLED,), Channel.WEBHOOK, "https://example.com/")
    (id_,) = await db.submit(notify=wishes_json([wish]))
    await db.jobs.cancel_due(id_)
    await db.session.execute("UPDATE effects SET rule = 'r'")
    effects, groups, lease = Effects(db.postgres), Groups(db.postgres), secrets.token_bytes(16)
    (claimed,) = await effects.claim(Channel.WEBHOOK, lease, [], (1, 1, 60.0))
    join = partial(groups.join, Rule("r", wish), Grouping(wait_s=0.0), [claimed])
    if point == "after_join_groups":
        return join, "SELECT group_id IS NOT NULL FROM effects"
    await join()
    (leader,) = await effects.claim(Channel.WEBHOOK, lease, [], (1, 1, 60.0))
    return partial(groups.settle, leader, 10, 60.0), "SELECT message_id IS NOT NULL FROM effects"


async def _prepared_graph(db: Database, point: str) -> tuple[Call, str]:
    """The same for transactions on graphs."""
    if point == "after_commit_graph":
        id_ = making.job_id()
        new = Submission(
            weaving.new_jobs({"a": [], "b": ["a"]}, id_), workflow=NewWorkflow(id_, "w")
        )
        return lambda: db.submissions.store_graph(new), "SELECT count(*) = 2 FROM jobs"
    woven = await weaving.weave(db, {"a": [], "b": ["a"]})
    ended = "SELECT count(*) = {} FROM job_ended"
    match point:
        case "after_settle_graph":
            batch = [settlement(job, SUCCESS) for job in await woven.start("a")]
            return lambda: db.graphs.settle(batch), "SELECT count(*) = 0 FROM job_blocked"
        case "after_advance":
            await db.session.execute("UPDATE workflows SET halt = 'cancel', halting = true")
            return lambda: db.graphs.advance(woven.id), ended.format(2)
        case "after_nest":
            (job,) = await db.running(kind="workflow")
            inner = making.job_id()
            workflow = NewWorkflow(inner, "inner", holder=job.id)
            submission = Submission(weaving.new_jobs({"x": []}, inner), workflow=workflow)
            given = "SELECT count(*) = 1 FROM workflows WHERE holder_id IS NOT NULL"
            return lambda: Nested(db.postgres).store(job, submission), given
        case "after_cancel_graph":
            return lambda: db.graphs.cancel_job(woven.ids["a"], woven.id), ended.format(2)
        case "after_cancel_workflow":
            return lambda: db.graphs.cancel_workflow(woven.id), ended.format(2)
        case "after_retry_workflow":
            await woven.fail("a")
            return lambda: db.graphs.retry_workflow(woven.id, None), ended.format(0)
        case "after_expire_graph":
            await db.session.execute("UPDATE job_due SET expires_at = now() - interval '1 s'")
            return lambda: db.graphs.expire(10), ended.format(2)
        case "after_prune_workflows":
            await (await weave(db, {"only": ()})).end("only")
            prune = Retention(db.postgres).prune_workflows
            return lambda: prune(0.0, 10), "SELECT count(*) = 1 FROM pruned_workflows"
    raise AssertionError(f"no call of {point}: write one")


@pytest.mark.parametrize("point", ANSWERS)
@pytest.mark.parametrize("action", ["cut", "raise"])
async def test_what_was_sent_is_carried_out_and_nobody_knows(
    db: Database, point: str, action: str
) -> None:
    call, is_done = await _prepared(db, point)
    chaos.arm(f"{point}:#1:{action}", "test")
    with pytest.raises(StoreUnavailable) as caught:
        await call()
    assert caught.value.unknown

    async def carried_out() -> bool:
        return bool(await db.session.fetchval(is_done))

    await eventually(carried_out, f"{point} was carried out")
    assert await db.places([making.job_id()]) == [None], "the pool serves on"


@pytest.mark.parametrize("point", ANSWERS)
async def test_without_an_order_the_answer_is_heard(db: Database, point: str) -> None:
    call, is_done = await _prepared(db, point)
    await call()
    assert await db.session.fetchval(is_done)


@pytest.mark.parametrize("point", ["before_commit_keyed", "before_commit_large"])
async def test_before_a_commit_nothing_stands_and_the_same_can_be_sent_again(
    db: Database, point: str
) -> None:
    call, is_done = await _prepared(db, point.replace("before", "after"))
    chaos.arm(f"{point}:#1:raise", "test")
    with pytest.raises(StoreUnavailable) as caught:
        await call()
    assert not caught.value.unknown
    assert await db.count("jobs") == 0
    await call()
    assert await db.session.fetchval(is_done)
