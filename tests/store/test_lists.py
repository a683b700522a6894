"""Lists of jobs against a model: all pages together are the filtered set, in order, and no twin.

The limits of a search are set low for most of this, so that a few hundred jobs meet every way to
search, every cut and every horizon.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.view import JobView
from penstock.store import lists
from penstock.store.lists import HIGHEST, LOWEST, JobFilter, Lists
from tests.support import making
from tests.support.database import Database
from tests.support.placed import STATES, Placed, listed, place, some_jobs

TIGHT = {
    "LOOKS_MAX": 60,
    "_PROBED_MAX": 30,
    "_FEW": 12,
    "_COMMON": 8,
    "_QUEUES_MAX": 3,
    "_REMEMBERED_S": 0.0,
}


async def all_pages(db: Database, of: JobFilter, limit: int) -> tuple[list[JobView], int]:
    """What a client gathers who follows the cursor to its end, and over how many pages."""
    found: list[JobView] = []
    pages = 0
    position: JobId | None = of.below
    while position is not None:
        page = await db.lists.jobs(replace(of, below=position), limit)
        assert len(page.items) <= limit
        assert page.next is None or page.next < position, "a page must get on"
        position = page.next
        found += page.items
        pages += 1
    return found, pages


def some_filter(jobs: Sequence[Placed], source: random.Random) -> JobFilter:
    """Each dimension filtered or not; also by what is rare, what nobody has, and by many."""

    def some(values: Sequence[str], most: int = 3) -> list[str] | None:
        if source.random() < 0.5:
            return None
        return sorted(source.sample(values, source.randint(1, most)))

    states = some([str(state) for state in STATES], 7)
    ids = sorted([*(source.choice(jobs).id for _ in range(2)), LOWEST, HIGHEST])
    is_window = source.random() < 0.3
    return JobFilter(
        queues=some(["q1", "q2", "q3", "nobody's", "q4"], 5),
        kinds=some(["k1", "k2", "k3", "nobody's"]),
        tags=some(["a", "b", "c", "rare", "nobody's"]),
        states=None if states is None else frozenset(State(name) for name in states),
        since=ids[1] if is_window else LOWEST,
        below=ids[2] if is_window else HIGHEST,
        workflow=source.choice(jobs).workflow if source.random() < 0.3 else None,
    )


@pytest.mark.parametrize("limits", [TIGHT, {}], ids=["tight limits", "its own limits"])
@pytest.mark.parametrize("seed", range(4))
async def test_all_pages_together_are_the_filtered_set_in_order(
    db: Database, monkeypatch: pytest.MonkeyPatch, seed: int, limits: dict[str, Any]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(lists, name, value)
    source = random.Random(seed)
    jobs = some_jobs(400, source)
    await place(db.session, jobs)
    states = {job.id: job.state for job in jobs}
    for _ in range(50):
        of, limit = some_filter(jobs, source), source.choice([3, 20, 200])
        found, _pages = await all_pages(db, of, limit)
        assert [view.id for view in found] == listed(jobs, of), (of, limit)
        assert all(view.state == states[view.id] for view in found)


async def test_without_a_search_that_had_to_stop_every_page_but_the_last_is_full(
    db: Database,
) -> None:
    jobs = some_jobs(230, random.Random(1))
    await place(db.session, jobs)
    for of in (JobFilter(), JobFilter(queues=["q1"]), JobFilter(tags=["a"])):
        found, pages = await all_pages(db, of, 20)
        assert pages == -(-len(found) // 20)
    exactly = JobFilter(since=jobs[-20].id)
    assert (await all_pages(db, exactly, 20))[1] == 1


async def test_a_search_that_has_to_stop_answers_an_empty_page_and_where_to_go_on(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LOOKS_MAX", 50)
    rare, *others = making.job_ids(200)
    await place(
        db.session,
        [
            Placed(rare, "q", "k", State.SUCCEEDED),
            *(Placed(id_, "q", "k", State.CANCELLED) for id_ in others),
        ],
    )
    page = await db.lists.jobs(JobFilter(states=frozenset({State.SUCCEEDED})), 10)
    assert page.items == []
    assert page.next == sorted(others)[-50]
    found, pages = await all_pages(db, JobFilter(states=frozenset({State.SUCCEEDED})), 10)
    assert ([view.id for view in found], pages) == ([rare], 5)  # four times 50, and the end


@pytest.mark.parametrize("limits", [TIGHT, {}], ids=["tight limits", "its own limits"])
async def test_jobs_that_move_while_one_pages_are_seen_once_each(
    db: Database, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(lists, name, value)
    ids = await db.submit(300, tags=("a",))
    left = list(ids)
    random.Random(2).shuffle(left)

    async def work() -> None:
        worker = await db.worker()
        while left:
            batch = [left.pop() for _ in range(min(7, len(left)))]
            for run in await db.jobs.start(batch, worker):
                await db.settle(run, making.SUCCESS)

    working = asyncio.create_task(work())
    for of in (JobFilter(), JobFilter(queues=["default"]), JobFilter(tags=["a"])):
        while not working.done():
            found, _ = await all_pages(db, of, 17)
            assert [view.id for view in found] == sorted(ids, reverse=True)
            if of.tags is None and len(left) < 200 - 100 * (of.queues is not None):
                break
    await working
    found, _ = await all_pages(db, JobFilter(states=frozenset({State.SUCCEEDED})), 17)
    assert len(found) == 300


async def test_a_page_shows_each_job_in_a_state_that_was_asked_for(db: Database) -> None:
    """A job that moves between the search and the reading must not be shown as it is then."""
    worker = await db.worker()
    ids = await db.submit(60)
    runs = await db.jobs.start(ids, worker)

    async def work() -> None:
        for run in runs:
            await db.settle(run, making.SUCCESS)

    working = asyncio.create_task(work())
    while not working.done():
        page = await db.lists.jobs(JobFilter(states=frozenset({State.RUNNING})), 60)
        assert {view.state for view in page.items} <= {State.RUNNING}
    await working


async def test_items_have_payloads_and_results_only_if_asked_for(db: Database) -> None:
    (run,) = await db.running(payload='{"a":1}')
    await db.settle(run, making.SUCCESS)
    for whole, payload, result in ((True, '{"a":1}', '{"answer":42}'), (False, "null", None)):
        (view,) = (await db.lists.jobs(JobFilter(), 10, whole=whole)).items
        assert (view.payload, view.result) == (payload, result)


async def test_a_page_ends_when_its_payloads_become_too_large(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "PAGE_BYTES", 10_000)
    ids = [*await db.submit(2, payload=f'"{"x" * 20_000}"'), *await db.submit(50)]
    ids += await db.submit(3, payload=f'"{"y" * 4000}"')
    sizes, position = [], HIGHEST
    seen: list[JobId] = []
    while position != LOWEST:
        page = await db.lists.jobs(JobFilter(below=position), 200, whole=True)
        sizes.append(len(page.items))
        seen += [view.id for view in page.items]
        position = page.next or LOWEST
    assert sizes == [2, 51, 1, 1]  # the first of a page is in it however large it is
    assert seen == sorted(ids, reverse=True)


async def test_a_kind_is_found_also_where_there_are_too_many_lanes_to_look_into_each(
    db: Database,
) -> None:
    jobs = [
        Placed(id_, "q", f"k{n}", State.DEAD if n % 2 else State.SUCCEEDED)
        for n, id_ in enumerate(making.job_ids(1100))
    ]
    await place(db.session, jobs)
    for of in (
        JobFilter(kinds=["k0", "k7", "k1099"]),
        JobFilter(queues=["q"], kinds=["k7"], states=frozenset({State.DEAD})),
    ):
        found, _ = await all_pages(db, of, 50)
        assert [view.id for view in found] == listed(jobs, of)


async def test_a_common_tag_is_remembered_as_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_FEW", 12)
    monkeypatch.setattr(lists, "_COMMON", 8)
    jobs = [Placed(id_, "q", "k", State.DEAD, ("common",)) for id_ in making.job_ids(100)]
    await place(db.session, jobs)
    fresh = Lists(db.postgres, db.health)
    for _ in range(2):
        page = await fresh.jobs(JobFilter(tags=["common"]), 50)
        assert len(page.items) == 50
        assert fresh._common == {("common",)}
