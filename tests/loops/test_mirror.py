"""The mirror: blocked shelves come to look like job_blocked, whatever was missed or came late."""

import pytest

from penstock.domain import ids
from penstock.loops import mirror
from penstock.loops.mirror import Mirror
from penstock.queue import keys
from tests.support import making
from tests.support.blocking import block
from tests.support.still import Still


async def blocked(still: Still) -> dict[str, list[bytes]]:
    """The ids on the blocked shelves, by queue."""
    prefix, suffix = "{q:", "}:blocked"
    return {
        name.removeprefix(prefix).removesuffix(suffix): list(members)
        for name, members in (await still.shelves()).items()
        if name.endswith(suffix)
    }


async def walk_round(still: Still, steps: int = 1) -> None:
    await still.engine.book.step()
    one = Mirror(still.engine.parts)
    for _ in range(steps):
        await one.step()


async def test_what_waits_for_parents_gets_on_its_shelf(
    still: Still, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_PAGE", 3)
    one = await block(still.db, 4, queue="one")
    two = [*await block(still.db, 3, queue="two"), *await block(still.db, 1, queue="two", kind="b")]
    await walk_round(still, 3)
    assert await blocked(still) == {"one": one, "two": two}
    ages = (await still.shelves())["{q:one}:blocked"]
    assert ages == {id_: ids.created_ms(id_) for id_ in one}


async def test_what_does_not_wait_leaves_it(still: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_PAGE", 3)
    waiting = {}
    for queue in ("one", "two"):
        await still.submit(queue=queue)
        waiting[queue] = await block(still.db, 4, queue=queue)
        strangers = [making.due(queue=queue) for _ in range(7)]
        await still.engine.shelves.enqueue((), blocked=strangers)
        await still.redis.raw.zadd(keys.blocked(queue), {b"none of ours": 7})
    await walk_round(still, 20)
    assert await blocked(still) == waiting


async def test_it_walks_round_again(still: Still) -> None:
    await still.submit()
    one = Mirror(still.engine.parts)
    await still.engine.book.step()
    for _ in range(3):
        waiting = await block(still.db, 2)
        stray = making.due()
        await still.engine.shelves.enqueue((), blocked=[stray])
        for _ in range(2):
            await one.step()
        assert await blocked(still) == {"default": waiting}
        await still.db.session.execute("TRUNCATE job_blocked")
