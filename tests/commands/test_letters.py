"""Replays by filter: bounded, once each, told truthfully when they break off."""

import asyncio

import pytest

from penstock import chaos
from penstock.commands import letters
from penstock.commands.letters import DeadLetters
from penstock.domain.errors import Contended, DuplicateJob, StoreUnavailable
from penstock.domain.ids import JobId
from penstock.domain.letter import Renewal
from penstock.store.letters import LetterFilter
from tests.support.making import FINAL_FAILURE
from tests.support.still import Still
from tests.support.weaving import weave

ALL = LetterFilter()


async def died(still: Still, count: int, **fields: object) -> list[JobId]:
    runs = await still.start(count, **fields)
    await still.settle(*((run, FINAL_FAILURE) for run in runs))
    return [run.id for run in runs]


@pytest.fixture
def dead(still: Still) -> DeadLetters:
    return still.engine.dead_letters


async def test_one_call_replays_so_many_and_says_that_there_are_more(
    still: Still, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "_AT_ONCE", 2)
    monkeypatch.setattr(letters, "REPLAYS_MAX", 4)
    ids = await died(still, 5)
    assert (await dead.count(ALL)).more
    done = await dead.replay_all(ALL, "ada", None)
    assert (done.matched, done.replayed, done.more) == (4, 4, True)
    assert await still.db.places(ids) == ["ready"] * 4 + ["dead"]
    done = await dead.replay_all(ALL, "ada", None)
    assert (done.matched, done.replayed, done.more) == (1, 1, False)


async def test_it_ends_when_its_time_is_over(
    still: Still, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "_TIME_MAX_S", -1.0)
    monkeypatch.setattr(letters, "_AT_ONCE", 2)
    await died(still, 3)
    woven = await weave(still.db, {"a": ()})
    await woven.fail("a")
    done = await dead.replay_all(ALL, "ada", None)
    assert (done.replayed, done.more) == (2, True)


async def test_jobs_of_graphs_are_replayed_too_each_at_its_time(
    still: Still, dead: DeadLetters
) -> None:
    (first,) = await died(still, 1)
    woven = await weave(still.db, {"a": (), "b": ()})
    await woven.fail("a", "b")
    done = await dead.replay_all(ALL, "ada", 0.01)
    assert (done.matched, done.replayed) == (3, 3)
    assert await still.db.places([first]) == ["ready"]
    assert set((await woven.states()).values()) == {"scheduled"}


async def test_what_broke_off_says_what_was_done(
    still: Still, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "_AT_ONCE", 2)
    await died(still, 4)
    store = still.engine.letters
    replay, calls = store.replay_plain, 0

    async def breaks(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable("it is away")
        return await replay(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "replay_plain", breaks)
    done = await dead.replay_all(ALL, "ada", None)
    assert (done.replayed, done.more) == (2, True)
    monkeypatch.setattr(store, "replay_plain", replay)
    done = await dead.replay_all(ALL, "ada", None)
    assert (done.replayed, done.more) == (2, False)


async def test_what_was_replayed_without_an_answer_is_not_replayed_twice(
    still: Still, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "_AT_ONCE", 2)
    ids = await died(still, 4)
    chaos.arm("after_replay_letters:#2:raise", "test")
    try:
        done = await dead.replay_all(ALL, "ada", None)
    finally:
        chaos.arm(None, "test")
    assert (done.replayed, done.failed, done.more) == (2, 0, True)
    assert await still.db.places(ids) == ["ready"] * 4
    done = await dead.replay_all(ALL, "ada", None)
    assert (done.matched, done.replayed, done.more) == (0, 0, False)


async def test_of_those_that_cant_run_again_the_first_are_told(
    still: Still, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "TOLD_MAX", 2)
    ids = [(await died(still, 1, unique_key="k"))[0] for _ in range(4)]
    await still.submit(unique_key="k", delay_s=60.0)
    done = await dead.replay_all(ALL, "ada", None)
    assert (done.matched, done.replayed, done.failed) == (4, 0, 4)
    assert [id_ for id_, _ in done.failures] == ids[:2]
    assert all(isinstance(error, DuplicateJob) for _, error in done.failures)
    assert await still.db.places(ids) == ["dead"] * 4


async def test_two_at_once_don_t_wait_for_each_other(still: Still, dead: DeadLetters) -> None:
    ids = await died(still, 3)
    results = await asyncio.gather(
        *(dead.replay_all(ALL, "ada", None) for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(one, Contended) for one in results) == 1
    assert await still.db.places(ids) == ["ready"] * 3


async def test_a_new_queue_is_made_for_a_replay(still: Still, dead: DeadLetters) -> None:
    (id_,) = await died(still, 1)
    await dead.replay(id_, Renewal("ada", queue="brand-new"))
    assert "brand-new" in await still.db.reads.queue_names()
    job = await still.db.reads.job(id_)
    assert job is not None
    assert (job.queue, job.state) == ("brand-new", "ready")
