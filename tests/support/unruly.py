"""Handlers that do to their process what no handler should. For replicas of their own only."""

import asyncio
import sys
import threading
from collections.abc import Callable

from penstock.handlers import Context, handler

_kept: list["asyncio.Task[None]"] = []


async def _exits() -> None:
    sys.exit(3)


async def _interrupts() -> None:
    raise KeyboardInterrupt


@handler("exits-in-a-task")
async def exits_in_a_task() -> None:
    await asyncio.create_task(_exits())


@handler("exits-in-a-future")
async def exits_in_a_future() -> None:
    await asyncio.ensure_future(_interrupts())


@handler("exits-in-a-group")
async def exits_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exits())
        await asyncio.sleep(60)


async def _told(call: Callable[[Callable[[], None]], object]) -> None:
    """Returns when what was called back has exited."""
    exits = asyncio.Event()

    def callback() -> None:
        exits.set()
        sys.exit(3)

    call(callback)
    await exits.wait()


@handler("exits-in-a-callback")
async def exits_in_a_callback() -> None:
    await _told(asyncio.get_running_loop().call_soon)


@handler("exits-in-a-timer")
async def exits_in_a_timer() -> None:
    loop = asyncio.get_running_loop()
    await _told(lambda callback: loop.call_later(0.01, callback))


@handler("exits-from-a-thread")
async def exits_from_a_thread() -> None:
    """Its thread calls back into the event loop."""
    loop = asyncio.get_running_loop()
    await _told(
        lambda back: threading.Thread(target=loop.call_soon_threadsafe, args=(back,)).start()
    )


@handler("fails-in-a-thread")
def fails_in_a_thread() -> None:
    def fail() -> None:
        raise ValueError("in a thread\nof its own")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


async def _clings() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@handler("leaves-a-task-that-clings")
async def leaves_a_task_that_clings() -> None:
    _kept.append(asyncio.create_task(_clings()))


@handler("cancels-a-loop")
async def cancels_a_loop(ctx: Context) -> None:
    """Cancels what isn't its own."""
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "reaper")
    task.cancel()
    ctx.progress(100)
    await asyncio.sleep(60)
