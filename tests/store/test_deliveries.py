"""Deliveries in Postgres: a list of what is pending and over, sending again, endpoints."""

from dataclasses import replace

import pytest

from penstock.domain.delivery import DeliveryView, Outcome, endpoint_id
from penstock.domain.effect import Channel
from penstock.store.deliveries import Deliveries, DeliveryFilter
from penstock.store.effects import Effects
from tests.support import making
from tests.support.database import Database
from tests.support.letterbox import HOOK, Letterbox

LEASE = b"l" * 16


@pytest.fixture
def deliveries(db: Database) -> Deliveries:
    return Deliveries(db.postgres, db.health)


@pytest.fixture
def box(db: Database) -> Letterbox:
    return Letterbox(db.session)


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
    deliveries: Deliveries, box: Letterbox
) -> None:
    ids = [
        await box.pending(),
        await box.over(),
        await box.over("failed", error="503"),
        await box.pending(channel="email", endpoint="ops@example.com"),
        await box.over("dropped"),
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
    db: Database, deliveries: Deliveries, box: Letterbox
) -> None:
    (job,), workflow = await db.submit(), making.job_id()
    ids = [
        await box.pending(job_id=job),
        await box.over(job_id=job),
        await box.over("failed", job_id=making.job_id()),
        await box.pending(workflow_id=workflow),
        await box.over(workflow_id=workflow),
        await box.over("failed", job_id=job),
    ]
    assert await listed(deliveries, DeliveryFilter(job=job)) == [ids[5], ids[1], ids[0]]
    failed = DeliveryFilter(job=job, outcomes=frozenset({Outcome.FAILED}))
    assert await listed(deliveries, failed) == [ids[5]]
    assert await listed(deliveries, DeliveryFilter(job=job, channels=["email"])) == []
    assert await listed(deliveries, DeliveryFilter(workflow=workflow)) == [ids[4], ids[3]]
    assert await listed(deliveries, DeliveryFilter(job=job, workflow=workflow)) == []


async def test_who_sees_some_queues_sees_their_jobs(
    db: Database, deliveries: Deliveries, box: Letterbox
) -> None:
    (mine,), (other,) = await db.submit(queue="mine"), await db.submit(queue="other")
    ids = [await box.over(job_id=mine), await box.pending(job_id=mine)]
    await box.over(job_id=other)
    await box.over()
    await box.pending(job_id=making.job_id())
    assert await listed(deliveries, DeliveryFilter(queues=["mine"])) == ids[::-1]
    assert await listed(deliveries, DeliveryFilter(queues=[])) == []


async def test_a_page_looks_at_a_bounded_number(
    deliveries: Deliveries, box: Letterbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = [await box.over(channel="email"), await box.pending(channel="email")]
    for _ in range(4):
        await box.over()
        await box.pending()
    monkeypatch.setattr("penstock.store.deliveries.LOOKS_MAX", 2)
    page = await deliveries.page(DeliveryFilter(channels=["email"]), 50)
    assert (page.items, page.next is None) == ([], False)
    assert await listed(deliveries, DeliveryFilter(channels=["email"])) == rare[::-1]
    assert len(await listed(deliveries)) == 10


async def test_what_is_over_is_sent_again_under_its_receivers_id(
    deliveries: Deliveries, box: Letterbox, db: Database
) -> None:
    id_ = await box.over("failed", dedupe="j:1", error="503")
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
    deliveries: Deliveries, box: Letterbox, db: Database
) -> None:
    id_ = await box.pending()
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
    deliveries: Deliveries, box: Letterbox, db: Database, by_id: bool
) -> None:
    other = "https://other.example.com/"
    await box.fails(is_disabled=True)
    await box.fails(other)
    waiting = [
        await box.pending(),
        await box.pending(),
        await box.pending(endpoint=other),
    ]
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
