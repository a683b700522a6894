"""Deliveries in Postgres: a list of what is pending and over, sending again, endpoints."""

from dataclasses import replace

import pytest

from penstock.domain.delivery import DeliveryView, Outcome, endpoint_id
from penstock.domain.effect import Channel
from penstock.store.deliveries import Deliveries, DeliveryFilter
from penstock.store.effects import Effects
from tests.support import making
from tests.support.database import Database
from tests.support.outbox import HOOK, Outbox

LEASE = b"l" * 16


@pytest.fixture
def deliveries(db: Database) -> Deliveries:
    return Deliveries(db.postgres, db.health)


@pytest.fixture
def outbox(db: Database) -> Outbox:
    return Outbox(db.session)


async def listed(deliveries: Deliveries, of: DeliveryFilter | None = None) -> list[bytes]:
    """All that a list has, by pages of two."""
    of = of or DeliveryFilter()
    found: list[DeliveryView] = []
    while True:
        page = await deliveries.page(of, 2)
        found += page.items
        if page.next is None:
            return [one.id for one in found]
        of = replace(of, below=page.next)


async def test_what_is_pending_and_what_is_over_is_one_list(
    deliveries: Deliveries, outbox: Outbox
) -> None:
    ids = [
        await outbox.pending(),
        await outbox.over(),
        await outbox.over("failed", error="503"),
        await outbox.pending(channel="email", endpoint="ops@example.com"),
        await outbox.over("dropped"),
    ]
    assert await listed(deliveries) == ids[::-1]
    assert await listed(deliveries, DeliveryFilter(channels=["email"])) == [ids[3]]
    pending = frozenset({Outcome.PENDING})
    assert await listed(deliveries, DeliveryFilter(outcomes=pending)) == [ids[3], ids[0]]
    over = frozenset({Outcome.DELIVERED, Outcome.FAILED})
    assert await listed(deliveries, DeliveryFilter(outcomes=over)) == [ids[2], ids[1]]
    assert await listed(deliveries, DeliveryFilter(outcomes=over | pending)) == [
        *(ids[3], ids[2], ids[1], ids[0])
    ]
    one = await deliveries.delivery(ids[2])
    assert one is not None
    assert (one.outcome, one.error, one.tries, one.due_at) == (Outcome.FAILED, "503", 3, None)


async def test_those_of_one_job_or_workflow(
    db: Database, deliveries: Deliveries, outbox: Outbox
) -> None:
    (job,), workflow = await db.submit(), making.job_id()
    ids = [
        await outbox.pending(job_id=job),
        await outbox.over(job_id=job),
        await outbox.over("failed", job_id=making.job_id()),
        await outbox.pending(workflow_id=workflow),
        await outbox.over(workflow_id=workflow),
        await outbox.over("failed", job_id=job),
    ]
    assert await listed(deliveries, DeliveryFilter(job=job)) == [ids[5], ids[1], ids[0]]
    failed = DeliveryFilter(job=job, outcomes=frozenset({Outcome.FAILED}))
    assert await listed(deliveries, failed) == [ids[5]]
    assert await listed(deliveries, DeliveryFilter(job=job, channels=["email"])) == []
    assert await listed(deliveries, DeliveryFilter(workflow=workflow)) == [ids[4], ids[3]]
    assert await listed(deliveries, DeliveryFilter(job=job, workflow=workflow)) == []


async def test_who_sees_some_queues_sees_their_jobs(
    db: Database, deliveries: Deliveries, outbox: Outbox
) -> None:
    (mine,), (other,) = await db.submit(queue="mine"), await db.submit(queue="other")
    ids = [await outbox.over(job_id=mine), await outbox.pending(job_id=mine)]
    await outbox.over(job_id=other)
    await outbox.over()
    await outbox.pending(job_id=making.job_id())
    assert await listed(deliveries, DeliveryFilter(queues=["mine"])) == ids[::-1]
    assert await listed(deliveries, DeliveryFilter(queues=[])) == []


async def test_a_page_looks_at_a_bounded_number(
    deliveries: Deliveries, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = [await outbox.over(channel="email"), await outbox.pending(channel="email")]
    for _ in range(4):
        await outbox.over()
        await outbox.pending()
    monkeypatch.setattr("penstock.store.deliveries.LOOKS_MAX", 2)
    page = await deliveries.page(DeliveryFilter(channels=["email"]), 50)
    assert (page.items, page.next is None) == ([], False)
    assert await listed(deliveries, DeliveryFilter(channels=["email"])) == rare[::-1]
    assert len(await listed(deliveries)) == 10


async def test_what_is_over_is_sent_again_under_its_receivers_id(
    deliveries: Deliveries, outbox: Outbox, db: Database
) -> None:
    id_ = await outbox.over("failed", dedupe="j:1", error="503")
    assert await deliveries.send_again(id_)
    assert await db.count("deliveries") == 0
    effects = Effects(db.postgres)
    (claimed,) = await effects.claim(Channel.WEBHOOK, LEASE, [], (10, 10, 60.0))
    assert (claimed.id, claimed.dedupe, claimed.tries) == (id_, "j:1", 1)
    assert not await deliveries.send_again(id_), "somebody is sending it"
    await effects.finish(LEASE, [(id_, "delivered", None)])
    one = await deliveries.delivery(id_)
    assert one is not None
    assert (one.outcome, one.tries) == (Outcome.DELIVERED, 1)
    assert not await deliveries.send_again(making.job_id())


async def test_what_waits_for_its_next_try_is_due_at_once(
    deliveries: Deliveries, outbox: Outbox, db: Database
) -> None:
    id_ = await outbox.pending()
    effects = Effects(db.postgres)
    assert await effects.claim(Channel.WEBHOOK, LEASE, [], (10, 10, 60.0)) == []
    assert await deliveries.send_again(id_)
    (claimed,) = await effects.claim(Channel.WEBHOOK, LEASE, [], (10, 10, 60.0))
    assert claimed.id == id_


async def test_a_test_is_an_effect_of_nothing(deliveries: Deliveries, db: Database) -> None:
    id_ = making.job_id()
    await deliveries.add_test(id_, Channel.WEBHOOK, HOOK)
    (claimed,) = await Effects(db.postgres).claim(Channel.WEBHOOK, LEASE, [], (10, 10, 60.0))
    assert (claimed.id, claimed.event, claimed.job, claimed.workflow) == (
        *(id_, "penstock.test.v1", None, None),
    )


@pytest.mark.parametrize("by_id", [True, False])
async def test_an_endpoint_is_taken_back_with_what_waits_for_it(
    deliveries: Deliveries, outbox: Outbox, db: Database, by_id: bool
) -> None:
    other = "https://other.example.com/"
    await outbox.fails(is_disabled=True)
    await outbox.fails(other)
    waiting = [await outbox.pending(), await outbox.pending(), await outbox.pending(endpoint=other)]
    found = await deliveries.endpoints(None, 10)
    assert {one.endpoint: one.disabled_at is None for one in found} == {HOOK: False, other: True}
    first = await deliveries.endpoints(None, 1)
    rest = await deliveries.endpoints(bytes.fromhex(endpoint_id(first[0].endpoint)), 10)
    assert [*first, *rest] == found
    assert await deliveries.enable(endpoint_id(HOOK) if by_id else HOOK) == (HOOK, "webhook")
    assert [one.endpoint for one in await deliveries.endpoints(None, 10)] == [other]
    claimed = await Effects(db.postgres).claim(Channel.WEBHOOK, LEASE, [], (10, 10, 60.0))
    assert {one.id for one in claimed} == set(waiting[:2])
    assert await deliveries.enable("nowhere") is None
