"""Who is next, as Postgres knows it: the same order as the shelves', whole, and paged."""

import random
from datetime import timedelta
from typing import Any

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.domain.score import ready_score
from penstock.store.line import Round
from penstock.store.rows import EPOCH, ms
from tests.support import making
from tests.support.database import Database
from tests.support.walking import pages

KINDS = ("a", "b", "c")


async def put(db: Database, *rows: Due) -> None:
    """Due rows as given; whole milliseconds, as a shelf knows them."""
    await db.session.executemany(
        "INSERT INTO job_due VALUES ($1, $2, $3, $4, $5, 0, 0, 0)",
        [
            (d.id, d.queue, d.kind, d.priority, EPOCH + timedelta(milliseconds=d.ready_ms))
            for d in rows
        ],
    )


@pytest.fixture
async def crowd(db: Database) -> list[Due]:
    """Many due rows with few different times, so that priorities and ties decide."""
    rand = random.Random(7)
    rows = [
        making.due(
            kind=rand.choice(KINDS),
            priority=rand.randrange(10),
            ready_ms=making.NOON_MS + rand.randrange(5) * 30_000,
        )
        for _ in range(300)
    ]
    now_ms = ms(await db.session.fetchval("SELECT clock_timestamp()"))
    late = now_ms - making.NOON_MS - 600_000
    rows = [
        making.due(id=d.id, kind=d.kind, priority=d.priority, ready_ms=d.ready_ms + late)
        for d in rows
    ]
    rand.shuffle(rows)
    await put(db, *rows)
    return rows


@pytest.mark.parametrize("aging_ms", [60_000.0, 1.0, 1000.0, 0.0], ids=lambda ms: f"{ms:g} ms")
@pytest.mark.parametrize("kinds", [["a"], ["c", "a"], list(KINDS)], ids=",".join)
@pytest.mark.parametrize("limit", [1, 50, 1000])
async def test_the_head_of_the_line_is_in_the_order_of_the_shelves_scores(
    db: Database, crowd: list[Due], aging_ms: float, kinds: list[str], limit: int
) -> None:
    def place(one: Due) -> tuple[float, bytes]:
        return ready_score(one.priority, one.ready_ms, aging_ms), one.id

    expected = sorted((one for one in crowd if one.kind in kinds), key=place)[:limit]
    assert await db.line.head("default", kinds, limit, aging_ms) == expected


async def test_the_head_holds_what_is_due_now_of_this_queue_only(db: Database) -> None:
    (ready,) = await db.submit(kind="a")
    await db.submit(kind="a", delay_s=60.0)
    await db.submit(kind="a", queue="other")
    await db.submit(kind="b")
    assert [one.id for one in await db.line.head("default", ["a"], 10, 0.0)] == [ready]
    assert await db.line.head("default", ["never"], 10, 0.0) == []
    assert await db.line.head("default", [], 10, 0.0) == []


async def test_a_place_in_line_is_told_as_the_shelf_will_know_it(db: Database) -> None:
    job = making.new_job(kind="a", priority=3)
    now = await db.submissions.store([job])
    expected = Due(job.id, "default", "a", 3, ms(now))
    assert await db.line.head("default", ["a"], 1, 0.0) == [expected]
    assert await db.line.among([job.id, making.job_id()]) == [expected]


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
async def test_the_pages_hold_every_row_of_a_queue_once(
    db: Database, crowd: list[Due], size: int
) -> None:
    if size == 1:
        crowd = crowd[:40]
        await db.session.execute(
            "DELETE FROM job_due WHERE job_id <> ALL($1)", [one.id for one in crowd]
        )
    await db.submit(queue="other")
    later = await db.submit(2, delay_s=3600.0, kind="a")
    cut = [page async for page in pages(db.line, "default", size)]
    assert all(len(page) == size for page in cut[:-1])
    found = [one for page in cut for one in page]
    assert len(found) == len(crowd) + 2
    by_id = {one.id: one for one in found}
    assert all(by_id[one.id] == one for one in crowd)
    assert by_id.keys() == {*(one.id for one in crowd), *later}


async def test_rows_that_come_and_go_while_paging_do_not_move_the_others(
    db: Database, crowd: list[Due]
) -> None:
    seen: list[JobId] = []
    gone: set[JobId] = set()
    async for page in pages(db.line, "default", 50):
        seen += [one.id for one in page]
        for id_ in rest[:5] if (rest := [one.id for one in crowd if one.id not in seen]) else []:
            await db.jobs.cancel_due(id_)
            gone.add(id_)
        await db.submit(kind="a")
    assert len(seen) == len(set(seen))
    assert {one.id for one in crowd} - gone <= set(seen)


async def test_an_empty_queue_has_no_pages(db: Database) -> None:
    assert [page async for page in pages(db.line, "default", 10)] == []


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], {}),
        ([{"kind": "b"}, {"kind": "a"}, {"kind": "a"}], {"default": ["a", "b"]}),
        ([{"queue": "z"}, {"queue": "m", "delay_s": 60.0}], {"m": ["echo"], "z": ["echo"]}),
        ([{"queue": q, "kind": k} for q in "xy" for k in "ab"], {"x": ["a", "b"], "y": ["a", "b"]}),
    ],
)
async def test_the_lines_are_the_queues_and_kinds_that_have_due_rows(
    db: Database, jobs: list[dict[str, Any]], expected: dict[str, list[str]]
) -> None:
    await db.running(queue="running")
    for fields in jobs:
        await db.submit(**fields)
    assert await Round(db.line, 200).next() == expected


async def test_a_round_comes_by_every_line_however_few_it_takes_at_a_time(db: Database) -> None:
    lines = [(queue, kind) for queue in ("p", "q", "r") for kind in ("a", "b", "c")]
    for queue, kind in lines:
        await db.submit(queue=queue, kind=kind)
    for size in range(1, 12):
        walk = Round(db.line, size)
        seen = [(q, k) for _ in lines for q, kinds in (await walk.next()).items() for k in kinds]
        assert set(seen) == set(lines)


@pytest.mark.parametrize(
    ("micros", "expected"),
    [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (86_400_000_001, 86_400_001)],
)
def test_a_time_is_rounded_up_so_that_a_shelf_is_never_early(micros: int, expected: int) -> None:
    assert ms(EPOCH + timedelta(microseconds=micros)) == expected
