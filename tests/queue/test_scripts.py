"""Each script as a table of whole states: given shelves -> call -> want shelves.

A shelf is written as {job: seconds from now}. Jobs are numbers; odd ones are of kind a, even ones
of kind b; all have priority 5 but for those of `PRIORITY`. On ready shelves the seconds say when
the job got ready, the score follows from it; on scheduled when it is due; on leases when it ends.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.domain.score import ready_score
from penstock.queue import keys
from penstock.queue.shelves import CHUNK, Off, Promoted, member
from tests.queue.conftest import Stand
from tests.support.redis_shelves import Contents

State = dict[str, dict[int, float]]

PRIORITY = {8: 0, 9: 9}
LEASE_S = 10.0
HOUR = 3600.0


def id_(n: int) -> JobId:
    return JobId(n.to_bytes(16, "big"))


def numbers(ids: list[JobId]) -> list[int]:
    return [int.from_bytes(one, "big") for one in ids]


def due(stand: Stand, n: int, at_s: float, queue: str = "q") -> Due:
    kind = "a" if n % 2 else "b"
    return Due(id_(n), queue, kind, PRIORITY.get(n, 5), stand.now_ms + round(at_s * 1000))


def whole(stand: Stand, state: State) -> Contents:
    """What Redis holds when the shelves are as `state` says."""
    found: Contents = {}
    for name, jobs in state.items():
        queue, shelf = name.split("/") if "/" in name else ("q", name)
        aging_ms = stand.redis.aging_ms.get(queue, 60_000.0)
        members = {}
        for n, at_s in jobs.items():
            if shelf == "blocked":  # by age; all of ours are as old as can be
                members[bytes(id_(n))] = 0.0
                continue
            one = due(stand, n, at_s, queue)
            if shelf.startswith("ready:"):
                members[bytes(one.id)] = ready_score(one.priority, one.ready_ms, aging_ms)
            else:
                key = member(one) if shelf == "scheduled" else bytes(one.id)
                members[key] = float(one.ready_ms)
        found[f"{{q:{queue}}}:{shelf}"] = members
    return found


async def state_now(stand: Stand, want: Contents) -> Contents:
    """All shelves; a lease's end counts as the wanted one when it is within three seconds."""
    found = await stand.redis.contents()
    for name, members in found.items():
        if name.endswith(":leases"):
            for key, score in members.items():
                wanted = want.get(name, {}).get(key, 0.0)
                members[key] = wanted if abs(score - wanted) < 3000 else score
    return found


@dataclass(frozen=True)
class Case:
    about: str
    given: State
    call: Callable[[Stand], Awaitable[Any]]
    answer: Any
    want: State
    aging_ms: float = 60_000.0
    lead_ms: int = 0
    marked: bool = field(default=True)


def enqueue(
    jobs: dict[int, float], off: tuple[int, ...] = (), queue: str = "q"
) -> Callable[[Stand], Awaitable[Any]]:
    return lambda stand: stand.shelves.enqueue(
        [due(stand, n, at_s, queue) for n, at_s in jobs.items()],
        [Off(queue, id_(n)) for n in off],
    )


def restore(jobs: dict[int, float]) -> Callable[[Stand], Awaitable[Any]]:
    return lambda stand: stand.shelves.restore(
        "q", [due(stand, n, at_s) for n, at_s in jobs.items()]
    )


def claim(kinds: str, count: int) -> Callable[[Stand], Awaitable[Any]]:
    async def call(stand: Stand) -> Any:
        claimed = await stand.shelves.claim("q", list(kinds), count, LEASE_S)
        return numbers(claimed.ids), claimed.marked

    return call


def promote(count: int = CHUNK) -> Callable[[Stand], Awaitable[Any]]:
    async def call(stand: Stand) -> Any:
        promoted = await stand.shelves.promote("q", count)
        return promoted.count, promoted.next_in_s and round(promoted.next_in_s)

    return call


def renew(*jobs: int) -> Callable[[Stand], Awaitable[Any]]:
    return lambda stand: stand.shelves.renew("q", [id_(n) for n in jobs], LEASE_S)


async def expired(stand: Stand) -> Any:
    return numbers(await stand.shelves.expired("q"))


def block(*jobs: int) -> Callable[[Stand], Awaitable[Any]]:
    return lambda stand: stand.shelves.enqueue((), blocked=[due(stand, n, 0) for n in jobs])


def unlock(jobs: dict[int, float]) -> Callable[[Stand], Awaitable[Any]]:
    return lambda stand: stand.shelves.enqueue(
        (), unlocked=[due(stand, n, at_s) for n, at_s in jobs.items()]
    )


def forget(n: int, at_s: float) -> Callable[[Stand], Awaitable[Any]]:
    return lambda stand: stand.shelves.forget([due(stand, n, at_s)])


CASES = {
    "enqueue": [
        Case(
            "what is ready goes to the shelf of its kind, the rest to scheduled",
            {},
            enqueue({1: -1, 2: 0, 3: -9, 4: 60, 5: HOUR}),
            [],
            {"ready:a": {1: -1, 3: -9}, "ready:b": {2: 0}, "scheduled": {4: 60, 5: HOUR}},
        ),
        Case(
            "strict scores keep every millisecond",
            {},
            enqueue({1: -0.001, 3: -0.002, 9: -0.003}),
            [],
            {"ready:a": {1: -0.001, 3: -0.002, 9: -0.003}},
            aging_ms=0.0,
        ),
        Case(
            "what goes off leaves the leases before it comes in line again",
            {"leases": {1: 5, 2: 5, 3: 5}},
            enqueue({1: -1, 2: 60}, off=(1, 2)),
            [],
            {"leases": {3: 5}, "ready:a": {1: -1}, "scheduled": {2: 60}},
        ),
        Case(
            "an ack alone",
            {"leases": {1: 5, 2: 5}},
            enqueue({}, off=(1, 7)),
            [],
            {"leases": {2: 5}},
        ),
        Case(
            "a repeated call changes nothing",
            {"ready:a": {1: -1}, "scheduled": {4: 60}},
            enqueue({1: -1, 4: 60}, off=(1, 4)),
            [],
            {"ready:a": {1: -1}, "scheduled": {4: 60}},
        ),
        Case("nothing to do is not even sent", {}, enqueue({}), [], {}),
        Case(
            "a queue without its marker is told",
            {},
            enqueue({1: -1}),
            ["q"],
            {"ready:a": {1: -1}},
            marked=False,
        ),
        Case(
            "scheduled scores go by Redis' clock, ready ones by Postgres'",
            {},
            enqueue({1: -1, 4: 60}),
            [],
            {"ready:a": {1: -1}, "scheduled": {4: 67}},
            lead_ms=7000,
        ),
        Case(
            "clocks that agree within some milliseconds are taken as one",
            {},
            enqueue({4: 60}),
            [],
            {"scheduled": {4: 60}},
            lead_ms=-5,
        ),
    ],
    "claim": [
        Case("nothing from nothing", {}, claim("a", 3), ([], True), {}),
        Case("nothing from empty shelves of several kinds", {}, claim("ab", 3), ([], True), {}),
        Case(
            "nobody serves nothing",
            {"ready:a": {1: -1}},
            claim("", 3),
            ([], True),
            {"ready:a": {1: -1}},
        ),
        Case(
            "the first of one kind, leased",
            {"ready:a": {1: -3, 3: -2, 5: -1}, "ready:b": {2: -9}},
            claim("a", 2),
            ([1, 3], True),
            {"ready:a": {5: -1}, "ready:b": {2: -9}, "leases": {1: LEASE_S, 3: LEASE_S}},
        ),
        Case(
            "the heads of several kinds are merged",
            {"ready:a": {1: -9, 3: -5, 5: -1}, "ready:b": {2: -7, 4: -3}, "ready:c": {6: -99}},
            claim("ab", 4),
            ([1, 2, 3, 4], True),
            {
                "ready:a": {5: -1},
                "ready:c": {6: -99},
                "leases": dict.fromkeys([1, 2, 3, 4], LEASE_S),
            },
        ),
        Case(
            "fewer than were asked for, and the shelves are gone",
            {"ready:a": {1: -1}, "ready:b": {2: -2}},
            claim("ab", 9),
            ([2, 1], True),
            {"leases": {1: LEASE_S, 2: LEASE_S}},
        ),
        Case(
            "ties go by id, whatever their kind",
            {"ready:a": {7: -1, 3: -1, 5: -1}, "ready:b": {4: -1, 6: -1}},
            claim("ba", 4),
            ([3, 4, 5, 6], True),
            {"ready:a": {7: -1}, "leases": dict.fromkeys([3, 4, 5, 6], LEASE_S)},
        ),
        Case(
            "ties of one kind go by id too",
            {"ready:a": {7: -1, 3: -1, 5: -1}},
            claim("a", 2),
            ([3, 5], True),
            {"ready:a": {7: -1}, "leases": {3: LEASE_S, 5: LEASE_S}},
        ),
        Case(
            "four steps of priority are worth four minutes of waiting",
            {"ready:a": {9: 0, 1: -239, 3: -241}},
            claim("a", 3),
            ([3, 9, 1], True),
            {"leases": dict.fromkeys([1, 3, 9], LEASE_S)},
        ),
        Case(
            "strict priority goes before any waiting",
            {"ready:a": {9: 0, 1: -HOUR}, "ready:b": {8: -9 * HOUR}},
            claim("ab", 3),
            ([9, 1, 8], True),
            {"leases": dict.fromkeys([1, 8, 9], LEASE_S)},
            aging_ms=0.0,
        ),
        Case(
            "shelves without a marker may not be whole",
            {"ready:a": {1: -1}},
            claim("a", 1),
            ([1], False),
            {"leases": {1: LEASE_S}},
            marked=False,
        ),
        Case("and of several kinds", {}, claim("ab", 1), ([], False), {}, marked=False),
    ],
    "promote": [
        Case("nothing is scheduled", {}, promote(), (0, None), {}),
        Case(
            "nothing is due yet; the next is told",
            {"scheduled": {1: 60, 2: 90}},
            promote(),
            (0, 60),
            {"scheduled": {1: 60, 2: 90}},
        ),
        Case(
            "what is due goes to the shelf of its kind",
            {"scheduled": {1: -1, 2: -2, 3: 30}, "ready:a": {5: -9}},
            promote(),
            (2, 30),
            {"scheduled": {3: 30}, "ready:a": {5: -9, 1: -1}, "ready:b": {2: -2}},
        ),
        Case(
            "no more than asked for, the longest due first",
            {"scheduled": {1: -1, 3: -2, 5: -3}},
            promote(2),
            (2, -1),
            {"scheduled": {1: -1}, "ready:a": {3: -2, 5: -3}},
        ),
        Case(
            "priorities age from the due time on",
            {"scheduled": {8: -1, 9: -2}},
            promote(),
            (2, None),
            {"ready:b": {8: -1}, "ready:a": {9: -2}},
        ),
        Case(
            "strict scores keep every millisecond",
            {"scheduled": {8: -0.001, 9: -0.002, 1: -0.003}},
            promote(),
            (3, None),
            {"ready:b": {8: -0.001}, "ready:a": {9: -0.002, 1: -0.003}},
            aging_ms=0.0,
        ),
        Case(
            "where Redis' clock leads, the ready score still goes by Postgres'",
            {"scheduled": {1: -1}},
            promote(),
            (1, None),
            {"ready:a": {1: -8}},
            lead_ms=7000,
        ),
    ],
    "restore": [
        Case(
            "what stands on no shelf is put on one and counted",
            {"ready:a": {1: -1}},
            restore({1: -1, 2: -2, 3: -3, 4: 60}),
            3,
            {"ready:a": {1: -1, 3: -3}, "ready:b": {2: -2}, "scheduled": {4: 60}},
        ),
        Case(
            "what somebody has claimed is left alone",
            {"leases": {1: 5, 4: 5}},
            restore({1: -1, 4: 60}),
            0,
            {"leases": {1: 5, 4: 5}},
        ),
        Case(
            "what is due but still scheduled is not there twice",
            {"scheduled": {1: -1, 3: 60}},
            restore({1: -1}),
            1,
            {"ready:a": {1: -1}, "scheduled": {3: 60}},
        ),
        Case(
            "nothing is missing",
            {"ready:a": {1: -1}, "scheduled": {4: 60}},
            restore({1: -1, 4: 60}),
            0,
            {"ready:a": {1: -1}, "scheduled": {4: 60}},
        ),
        Case(
            "what is missing is not blocked any more",
            {"blocked": {1: 0, 3: 0, 4: 0}, "leases": {3: 5}},
            restore({1: -1, 3: -1, 4: 60}),
            2,
            {"ready:a": {1: -1}, "scheduled": {4: 60}, "blocked": {3: 0}, "leases": {3: 5}},
        ),
        Case("nothing to look for", {"ready:a": {1: -1}}, restore({}), 0, {"ready:a": {1: -1}}),
    ],
    "block": [
        Case(
            "what waits for parents gets on a shelf of its own, whatever its kind",
            {"blocked": {1: 0}, "ready:a": {5: -1}},
            block(1, 2, 3),
            [],
            {"blocked": {1: 0, 2: 0, 3: 0}, "ready:a": {5: -1}},
        ),
        Case("nothing waits", {}, block(), [], {}),
    ],
    "unlock": [
        Case(
            "what waits no more moves to its line",
            {"blocked": {1: 0, 2: 0, 3: 0, 4: 0}},
            unlock({1: -1, 2: -1, 4: 60}),
            [],
            {"blocked": {3: 0}, "ready:a": {1: -1}, "ready:b": {2: -1}, "scheduled": {4: 60}},
        ),
        Case(
            "what was not mirrored gets in line all the same",
            {"leases": {1: 5}},
            unlock({1: -1, 4: 60}),
            [],
            {"leases": {1: 5}, "ready:a": {1: -1}, "scheduled": {4: 60}},
        ),
        Case(
            "a repeated call changes nothing",
            {"ready:a": {1: -1}, "blocked": {3: 0}},
            unlock({1: -1}),
            [],
            {"ready:a": {1: -1}, "blocked": {3: 0}},
        ),
        Case(
            "a queue without its marker is told",
            {"blocked": {1: 0}},
            unlock({1: -1}),
            ["q"],
            {"ready:a": {1: -1}},
            marked=False,
        ),
        Case("nothing to unlock is not even sent", {}, unlock({}), [], {}, marked=False),
    ],
    "renew": [
        Case(
            "leases that stand are prolonged, others don't come back",
            {"leases": {1: 1, 2: 2, 3: 3}},
            renew(1, 3, 7),
            None,
            {"leases": {1: LEASE_S, 2: 2, 3: LEASE_S}},
        ),
        Case("after a flush there is nothing to prolong", {}, renew(1, 2), None, {}),
    ],
    "expired": [
        Case("no leases", {}, expired, [], {}),
        Case(
            "those whose time is over, who stay",
            {"leases": {1: -5, 2: 5, 3: -9}},
            expired,
            [3, 1],
            {"leases": {1: -5, 2: 5, 3: -9}},
        ),
    ],
    "forget": [
        Case("a ready one", {"ready:a": {1: -1, 3: -1}}, forget(1, 0), None, {"ready:a": {3: -1}}),
        Case(
            "a scheduled one, whenever it is due",
            {"scheduled": {4: 60, 6: 60}},
            forget(4, 0),
            None,
            {"scheduled": {6: 60}},
        ),
        Case(
            "one that waits for parents",
            {"blocked": {1: 0, 3: 0}},
            forget(1, 0),
            None,
            {"blocked": {3: 0}},
        ),
        Case(
            "a claimed one stays leased", {"leases": {1: 5}}, forget(1, 0), None, {"leases": {1: 5}}
        ),
    ],
}
TABLE = [
    pytest.param(case, id=f"{verb}: {case.about}")
    for verb, cases in CASES.items()
    for case in cases
]


@pytest.mark.parametrize("case", TABLE)
async def test_given_these_shelves_a_call_leaves_those(stand: Stand, case: Case) -> None:
    stand.redis.aging_ms["q"] = case.aging_ms
    await stand.redis.put(whole(stand, case.given))
    if case.marked:
        await stand.shelves.mark("q")
    stand.lead_ms = case.lead_ms
    assert await case.call(stand) == case.answer
    want = whole(stand, case.want)
    assert await state_now(stand, want) == want


async def test_a_lease_ends_by_redis_clock(stand: Stand) -> None:
    await stand.shelves.enqueue([due(stand, 1, -1)])
    before = await stand.redis.now_ms()
    await stand.shelves.claim("q", ["a"], 1, 2.5)
    after = await stand.redis.now_ms()
    ((end,),) = [list(m.values()) for m in (await stand.redis.contents()).values()]
    assert before + 2500 <= end <= after + 2500


async def test_more_than_one_page_is_enqueued_and_restored_whole(stand: Stand) -> None:
    count = 2 * CHUNK + 1
    jobs = [due(stand, n, -1 if n % 3 else 60) for n in range(count)]
    await stand.shelves.enqueue(jobs, [Off("q", id_(n)) for n in range(count)])
    enqueued = await stand.redis.contents()
    assert sum(len(shelf) for shelf in enqueued.values()) == count
    await stand.redis.flush()
    assert await stand.shelves.restore("q", jobs) == count
    assert await stand.redis.contents() == enqueued
    assert await stand.shelves.restore("q", jobs) == 0


async def test_more_than_one_page_is_blocked_unlocked_and_forgotten_whole(stand: Stand) -> None:
    count = 2 * CHUNK + 1
    jobs = [due(stand, n, -1 if n % 3 else 60) for n in range(count)]
    await stand.shelves.enqueue((), blocked=jobs)
    assert [len(shelf) for shelf in (await stand.redis.contents()).values()] == [count]
    await stand.shelves.enqueue((), unlocked=jobs)
    unlocked = await stand.redis.contents()
    await stand.redis.flush()
    await stand.shelves.enqueue(jobs)
    assert await stand.redis.contents() == unlocked
    await stand.shelves.enqueue((), blocked=jobs)
    await stand.shelves.forget(jobs)
    assert await stand.redis.contents() == {}


async def test_unlocked_jobs_are_in_line_as_they_leave_the_blocked_shelf(stand: Stand) -> None:
    """Whoever looks at both shelves at once finds each id on one of them."""
    count = CHUNK + 500
    jobs = [due(stand, n, -1) for n in range(count)]
    await stand.shelves.enqueue((), blocked=jobs)
    unlocking = asyncio.create_task(stand.shelves.enqueue((), unlocked=jobs))
    found = set()
    while not unlocking.done():
        async with stand.redis.raw.pipeline(transaction=True) as pipe:
            for shelf in (keys.blocked("q"), *keys.ready("q", "ab")):
                pipe.zcard(shelf)
            found.add(sum(await pipe.execute()))
    await unlocking
    assert found == {count}


async def test_queues_do_not_touch_one_another(stand: Stand) -> None:
    jobs = [due(stand, 1, -1, "x"), due(stand, 3, -1, "y"), due(stand, 4, 60, "x")]
    assert await stand.shelves.enqueue(jobs) == ["x", "y"]
    want: State = {"x/ready:a": {1: -1}, "x/scheduled": {4: 60}, "y/ready:a": {3: -1}}
    assert await stand.redis.contents() == whole(stand, want)
    await stand.shelves.mark("x")
    assert await stand.shelves.enqueue(jobs) == ["y"]
    claimed = await stand.shelves.claim("y", ["a"], 9, LEASE_S)
    assert numbers(claimed.ids) == [3]


async def test_claimers_at_once_get_each_id_once(stand: Stand) -> None:
    shelves, count = stand.shelves, 300
    await shelves.enqueue([due(stand, n, -1) for n in range(count)])
    answers = await asyncio.gather(
        *(shelves.claim("q", kinds, 40, LEASE_S) for kinds in (["a", "b"], ["b"], ["a"]) * 4)
    )
    ids = [n for claimed in answers for n in numbers(claimed.ids)]
    assert len(ids) == len(set(ids)) >= 40 * 7
    rest = numbers((await shelves.claim("q", ["a", "b"], count, LEASE_S)).ids)
    assert sorted(ids + rest) == list(range(count))


async def test_a_claim_of_many_kinds_stops_before_it_would_have_to_guess(stand: Stand) -> None:
    """It looks at a block of each shelf: what stands behind a block that is used up may be next."""
    ids = list(range(11, 1211, 2))  # all of one kind; 4,000 / 8 kinds is a block of 500
    await stand.shelves.enqueue([*(due(stand, n, -2000 + n) for n in ids), due(stand, 2, -1)])
    claimed = await stand.shelves.claim("q", list("abcdefgh"), CHUNK, LEASE_S)
    assert (numbers(claimed.ids), claimed.more) == (ids[:500], True)
    claimed = await stand.shelves.claim("q", list("abcdefgh"), CHUNK, LEASE_S)
    assert (numbers(claimed.ids), claimed.more) == ([*ids[500:], 2], False)


async def test_a_claim_of_few_kinds_takes_all_it_may(stand: Stand) -> None:
    ids = list(range(11, 1211, 2))
    await stand.shelves.enqueue([due(stand, n, -2000 + n) for n in ids])
    claimed = await stand.shelves.claim("q", list("abcd"), 500, LEASE_S)
    assert (numbers(claimed.ids), claimed.more) == (ids[:500], False)


@pytest.mark.parametrize("count", [1, 7, 40, CHUNK])
async def test_claim_after_claim_gives_all_in_the_order_of_their_scores(
    stand: Stand, count: int
) -> None:
    rand = random.Random(count)
    jobs = [
        Due(id_(n), "q", rand.choice("abbc"), rand.randrange(10), stand.now_ms - rand.randrange(99))
        for n in range(150)
    ]
    await stand.shelves.enqueue(jobs)
    expected = sorted(jobs, key=lambda j: (ready_score(j.priority, j.ready_ms, 60_000.0), j.id))
    found: list[JobId] = []
    while (claimed := await stand.shelves.claim("q", list("abcx"), count, LEASE_S)).ids:
        assert len(claimed.ids) <= count
        assert claimed.more or len(claimed.ids) == count or len(found + claimed.ids) == 150
        found += claimed.ids
    assert found == [job.id for job in expected]


async def test_promoters_do_not_promote_twice(stand: Stand) -> None:
    await stand.redis.put(whole(stand, {"scheduled": {1: -1, 2: -1, 3: -1}}))
    counts = [(await stand.shelves.promote("q", 2)).count for _ in range(3)]
    assert counts == [2, 1, 0]


def test_promoted_tells_when_it_is_next_due() -> None:
    assert Promoted(0, None).next_in_s is None
