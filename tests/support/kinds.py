"""Handlers for tests: they write what they do to an execution log that survives a kill.

One line an event, by one write to a file opened for appending: the page cache survives `kill -9`.
`EXECUTION_LOG` in the environment names the file.
"""

import asyncio
import ctypes
import decimal
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from penstock.handlers import Context, handler

_LOG = "EXECUTION_LOG"


def record(ctx: Context, event: str) -> None:
    path = os.environ.get(_LOG)
    if path is None:
        return
    line = {"t": time.time(), "pid": os.getpid(), "job": ctx.job_id, "attempt": ctx.attempt}
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, orjson.dumps({**line, "ev": event}, option=orjson.OPT_APPEND_NEWLINE))
    finally:
        os.close(file)


@handler("logged")
async def logged(payload: Any, ctx: Context) -> Any:
    """Sleeps for `seconds`, fails the first `failures` attempts, answers its payload."""
    record(ctx, "start")
    payload = payload or {}
    await asyncio.sleep(payload.get("seconds", 0))
    record(ctx, "end")
    if ctx.attempt <= payload.get("failures", 0):
        raise ValueError("as asked")
    return payload


@handler("scripted")
async def scripted(payload: Any, ctx: Context) -> Any:
    """As `logged`, but succeeds at once when the file `mended` is there. So what dies in one life
    may succeed in the next, however many attempts were lost."""
    record(ctx, "start")
    await asyncio.sleep(payload["seconds"])
    record(ctx, "end")
    is_mended = payload["mended"] is not None and os.path.exists(payload["mended"])  # noqa: ASYNC240
    if ctx.attempt <= payload["failures"] and not is_mended:
        raise ValueError("as asked")
    return payload["seconds"]


@handler("spawning")
async def spawning(payload: Any, ctx: Context) -> None:
    """Submits `count` jobs of kind `logged` with its own payload, each after the one before. Their
    tag tells the checker that no caller submitted them."""
    record(ctx, "start")
    before: list[str] = []
    for number in range(payload["count"]):
        name = f"{ctx.name}/{number}" if ctx.workflow_id else None
        id_ = ctx.submit(
            "logged", payload, name=name, queue="a", depends_on=before, tags=["within"]
        )
        before = [name or id_]
    record(ctx, "end")


@handler("logged-thread")
def logged_thread(payload: Any, ctx: Context) -> Any:
    """The same as a plain function, looking at its cancellation every 10 ms."""
    record(ctx, "start")
    until = time.monotonic() + (payload or {}).get("seconds", 0)
    while time.monotonic() < until:
        ctx.raise_if_cancelled()
        time.sleep(0.01)
    record(ctx, "end")
    return payload


@handler("stubborn")
async def stubborn(payload: Any) -> None:
    """Swallows its cancellation."""
    until = time.monotonic() + payload["seconds"]
    while time.monotonic() < until:
        try:
            await asyncio.sleep(until - time.monotonic())
        except asyncio.CancelledError:
            continue


@handler("blocking")
async def blocking(payload: Any, ctx: Context) -> None:
    """Blocks the event loop for `seconds`."""
    record(ctx, "start")
    time.sleep(payload["seconds"])  # noqa: ASYNC251 - that is the fault
    record(ctx, "end")


@handler("chatty")
async def chatty(payload: Any, ctx: Context) -> None:
    """Logs `lines` lines."""
    for number in range(payload["lines"]):
        ctx.log.info("line", number=number)


@handler("bound")
def bound(payload: Any) -> Any:
    """Answers the decimal precision that it found, and leaves another behind."""
    found = decimal.getcontext().prec
    decimal.getcontext().prec = payload
    return found


def _segfault() -> None:
    ctypes.string_at(0)


def _overflow_the_stack() -> None:
    """Python counts how deep its calls are, but not how deep iterators lie in one another."""
    deep: Iterator[int] = iter(())
    for _ in range(300_000):
        deep = filter(None, deep)
    next(deep)


def _spin() -> None:
    while True:
        pass


_ENDS = {
    "exit": lambda: os._exit(7),
    "exit-well": lambda: os._exit(0),
    "segfault": _segfault,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # as the kernel does, out of memory
    "stack": _overflow_the_stack,
    "spin": _spin,
}


@handler("poison")
async def poison(payload: Any, ctx: Context) -> None:
    """Ends its process in the way `how` says, or spins for ever."""
    record(ctx, "start")
    ctx.log.info("the last that was heard of it", how=payload["how"])
    ctx.progress(50, "half dead")
    os.write(1, b"what it printed last\n")
    _ENDS[payload["how"]]()


@handler("poison-thread")
def poison_thread(payload: Any, ctx: Context) -> None:
    """The same as a plain function."""
    record(ctx, "start")
    _ENDS[payload["how"]]()


@handler("hog")
async def hog(payload: Any) -> int:
    """Takes `mib` MiB of memory and gives them back."""
    taken = [bytearray(1024 * 1024) for _ in range(payload["mib"])]
    return len(taken)


@handler("ticking")
async def ticking(payload: Any, ctx: Context) -> None:
    """Has a side effect every 20 ms for `seconds`, in the way `how` says."""
    record(ctx, "start")
    until = time.monotonic() + payload["seconds"]
    while time.monotonic() < until:
        record(ctx, "tick")
        if payload.get("how") == "block":
            time.sleep(0.02)  # noqa: ASYNC251 - that is the fault
        else:
            await asyncio.sleep(0.02)
    record(ctx, "end")


@handler("surroundings")
def surroundings(ctx: Context) -> dict[str, Any]:
    """What the process has that it runs in."""
    files = {name: os.readlink(f"/proc/self/fd/{name}") for name in _descriptors()}
    return {
        "pid": os.getpid(),
        "files": files,
        "environ": sorted(name for name in os.environ if name.startswith("PENSTOCK_")),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
        "loop": type(asyncio.get_event_loop_policy()).__name__,
        "remaining_s": ctx.remaining_s(),
        "attempt": ctx.attempt,
        "tags": list(ctx.tags),
        "stdin": sys.stdin.read(),
    }


def _descriptors() -> list[str]:
    listed = os.listdir("/proc/self/fd")
    return [name for name in listed if os.path.exists(f"/proc/self/fd/{name}")]


@handler("deaf")
def deaf(payload: Any, ctx: Context) -> None:
    """A plain function that never asks whether it should stop."""
    record(ctx, "start")
    time.sleep(payload["seconds"])


@handler("holding")
async def holding(payload: Any, ctx: Context) -> None:
    """Holds the interpreter for `seconds`, so that no other thread can run: as does a regular
    expression that goes astray, or a power of large numbers."""
    record(ctx, "start")
    ctypes.PyDLL(None).usleep(int(payload["seconds"] * 1e6))
    record(ctx, "end")


@handler("starts-another")
def starts_another() -> int:
    """Starts a process and forgets it."""
    return subprocess.Popen(["sleep", "60"]).pid
