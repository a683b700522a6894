"""Natural batching: what gathers while one batch is under way is the next."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.batcher import Batcher


class Sink:
    """Keeps what is flushed, one batch after the other, each when the test lets it pass."""

    def __init__(self, *, open_: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.done = 0
        self._passes = asyncio.Semaphore(1_000_000 if open_ else 0)
        self._begun = asyncio.Event()

    async def flush(self, batch: Sequence[int]) -> None:
        self.batches.append(list(batch))
        self._begun.set()
        await self._passes.acquire()
        self.done += 1

    def let_pass(self, count: int = 1) -> None:
        for _ in range(count):
            self._passes.release()

    async def begun(self) -> list[int]:
        """The batch whose flush began last, since the last call."""
        async with asyncio.timeout(1):
            await self._begun.wait()
        self._begun.clear()
        return self.batches[-1]


@asynccontextmanager
async def running(batcher: Batcher[int], lanes: int = 1) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(batcher.run()) for _ in range(lanes)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_gathers_during_a_flush_is_the_next_batch() -> None:
    sink = Sink()
    batcher = Batcher(sink.flush, 100)
    async with running(batcher):
        batcher.put([1])
        assert await sink.begun() == [1], "nothing is waited for when idle"
        batcher.put([2])
        batcher.put([3, 4])
        await turns()
        assert sink.batches == [[1]], "two flushes at once"
        assert len(batcher) == 3
        sink.let_pass()
        assert await sink.begun() == [2, 3, 4]
        assert len(batcher) == 0


@pytest.mark.parametrize(
    ("rows", "rows_max", "batches"),
    [
        ([1, 1, 1, 1, 1], 2, [[1, 1], [1, 1], [1]]),
        ([2, 3, 1], 5, [[2, 3], [1]]),
        ([3, 3, 3], 5, [[3], [3], [3]]),
        ([9, 1], 5, [[9], [1]]),
        ([1, 9, 1], 5, [[1], [9], [1]]),
        ([0, 0, 5, 0], 5, [[0, 0, 5, 0]]),
    ],
)
async def test_a_batch_holds_at_most_so_many_rows_but_at_least_one_item(
    rows: list[int], rows_max: int, batches: list[list[int]]
) -> None:
    sink = Sink(open_=True)
    batcher = Batcher(sink.flush, rows_max, lambda item: item)
    batcher.put(rows)
    async with running(batcher):
        await batcher.drained()
    assert sink.batches == batches


@given(st.lists(st.lists(st.integers(0, 7), max_size=6), max_size=12), st.integers(1, 10))
def test_nothing_is_lost_or_put_out_of_order(puts: list[list[int]], rows_max: int) -> None:
    async def flushed() -> list[list[int]]:
        sink = Sink(open_=True)
        batcher = Batcher(sink.flush, rows_max, lambda item: item)
        async with running(batcher):
            for items in puts:
                batcher.put(items)
                await asyncio.sleep(0)
            await batcher.drained()
        return sink.batches

    batches = asyncio.run(flushed())
    assert list(chain(*batches)) == list(chain(*puts))
    assert all(sum(batch) <= rows_max or len(batch) == 1 for batch in batches)


async def test_two_lanes_flush_each_item_once() -> None:
    sink = Sink()
    batcher = Batcher(sink.flush, 2)
    async with running(batcher, lanes=2):
        batcher.put(range(6))
        await turns()
        assert sink.batches == [[0, 1], [2, 3]], "two batches are under way"
        sink.let_pass(10)
        await turns()
    assert [batch for batch in sink.batches if batch] == [[0, 1], [2, 3], [4, 5]]


async def test_drained_waits_for_what_waits_and_for_what_is_under_way() -> None:
    sink = Sink()
    batcher = Batcher(sink.flush, 1)
    await batcher.drained()  # it is, before anything came
    async with running(batcher):
        batcher.put([1, 2])
        drained = asyncio.create_task(batcher.drained())
        for begun in (1, 2):
            assert await sink.begun() == [begun]
            await turns()
            assert not drained.done()
            sink.let_pass()
        async with asyncio.timeout(1):
            await drained
        assert sink.done == 2


async def test_what_a_flush_raises_ends_it() -> None:
    async def flush(batch: Sequence[int]) -> None:
        raise ZeroDivisionError

    batcher = Batcher(flush, 1)
    batcher.put([1])
    with pytest.raises(ZeroDivisionError):
        await batcher.run()
