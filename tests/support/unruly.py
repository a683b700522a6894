"""Handlers that do to their process what no handler should. For replicas of their own only."""

import asyncio
import multiprocessing
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from penstock.handlers import Context, handler
from tests.support.kinds import record

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


@handler("forks-and-exits")
async def forks_and_exits() -> None:
    if os.fork() == 0:
        sys.exit()


@handler("forks-and-goes-on")
async def forks_and_goes_on() -> str:
    """Both of them await."""
    copy = os.fork()
    await asyncio.sleep(0.1)
    return "parent" if copy else "copy"


@handler("forks-in-a-thread")
def forks_in_a_thread() -> str:
    return "parent" if os.fork() else "copy"


@handler("forks-in-a-task")
async def forks_in_a_task() -> None:
    """The copy comes back to the event loop, past the handler."""

    async def fork() -> None:
        os.fork()

    await asyncio.create_task(fork())


@handler("works-in-a-fork")
async def works_in_a_fork() -> int:
    """As multiprocessing does, with a pipe between the two."""
    return await _seven_by("fork")


@handler("works-in-a-new-process")
async def works_in_a_new_process() -> list[int]:
    """As multiprocessing does unless told otherwise: from 3.14 on Linux, and ever on macOS."""
    return [await _seven_by("forkserver"), await _seven_by("spawn")]


async def _seven_by(method: str) -> int:
    with multiprocessing.get_context(method).Pool(1) as pool:
        return int(await asyncio.to_thread(pool.apply, abs, (-7,)))


@handler("signals-a-fork")
def signals_a_fork() -> list[int]:
    """How copies of this process end to whom such signals come, that would sleep on."""
    return [_ended_by(number) for number in (signal.SIGTERM, signal.SIGINT)]


def _ended_by(number: int) -> int:
    source, sink = os.pipe()
    copy = os.fork()
    if copy == 0:
        with suppress(KeyboardInterrupt):
            os.write(sink, b"!")
            time.sleep(60)
            os._exit(1)
        os._exit(2)
    os.read(source, 1)
    # Python 3.13 and 3.14 see no signal in a copy that a thread has made, but when one interrupts
    # a call: what comes before the copy sleeps is overslept.
    while not (ended := os.waitpid(copy, os.WNOHANG))[0]:
        os.kill(copy, number)
        time.sleep(0.2)
    return os.waitstatus_to_exitcode(ended[1])


@handler("leaves-a-daemon")
def leaves_a_daemon() -> int:
    """That keeps all that it was born with; its process."""
    source, sink = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(sink, b"%d" % os.getpid())
            time.sleep(60)
        os._exit(0)
    return int(os.read(source, 10))


@handler("tells")
async def tells(payload: list[str], ctx: Context) -> None:
    """Writes frames of its own to every socket of its process."""
    record(ctx, "start")
    for file in _sockets():
        for text in payload:
            os.write(file, len(text).to_bytes(4, "big") + text.encode())
    await asyncio.sleep(60)


@handler("strikes-its-nursery")
async def strikes_its_nursery(payload: int) -> None:
    """With a signal of that number."""
    os.kill(os.getppid(), payload)
    await asyncio.sleep(0.5)


@handler("shares-with-its-nursery")
async def shares_with_its_nursery() -> list[str]:
    """The sockets that both of them have."""
    folders = (f"/proc/{pid}/fd" for pid in (os.getpid(), os.getppid()))
    ours, theirs = ({_target(f"{one}/{name}") for name in os.listdir(one)} for one in folders)
    return sorted(found for found in ours & theirs if found.startswith("socket:"))


def _target(link: str) -> str:
    with suppress(OSError):
        return os.readlink(link)
    return ""


def _sockets() -> list[int]:
    files = [int(name) for name in os.listdir("/proc/self/fd")]
    return [file for file in files if file > 2 and _is_socket(file)]


def _is_socket(file: int) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(os.fstat(file).st_mode)
    return False
