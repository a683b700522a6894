"""Work outlives those who wait for it, and fails in peace."""

import asyncio
import gc

import pytest

from penstock.outliving import outlived


class Ruined(Exception):
    """How the work fails."""


async def gone(work: "asyncio.Future[int]") -> None:
    """Somebody waited for it, and gave up."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await outlived(work)


async def test_work_that_succeeds_is_told_to_all_who_still_wait() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await gone(work)
    waiting = [asyncio.create_task(outlived(work)) for _ in range(2)]
    await asyncio.sleep(0)
    work.set_result(7)
    assert await asyncio.gather(*waiting) == [7, 7]
    assert await outlived(work) == 7, "and to whoever comes later"


async def test_work_that_fails_is_told_to_all_who_still_wait() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await gone(work)
    waiting = [asyncio.create_task(outlived(work)) for _ in range(2)]
    await asyncio.sleep(0)
    work.set_exception(Ruined())
    assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [
        Ruined,
        Ruined,
    ]


async def test_work_that_fails_when_nobody_waits_any_more_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await gone(work)
    work.set_exception(Ruined())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del work
    gc.collect()
    assert caplog.records == []


async def test_who_waits_for_work_that_is_cancelled_is_cancelled() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await gone(work)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outlived(work)
