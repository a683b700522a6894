"""The keeper ends a process that can't be helped, with words that say why; never a healthy one."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from penstock.dev.process import tethered
from penstock.loops.keeper import EXIT_STALLED
from tests.support.figures import crowded

PROGRAM = """
import asyncio, sys, time
from penstock.clock import ServerClock, monotonic
from penstock.loops.identity import Me
from penstock.loops.keeper import Keeper, Watch
from penstock.loops.stalls import Stalls
from penstock.telemetry.metrics import Metrics
from penstock.settings import Worker
from penstock.store.workers import Beat


class Line:
    async def beat(self, worker, ttl_s):
        if "fail" in sys.argv:
            raise ZeroDivisionError
        return Beat(True, time.time(), monotonic(), monotonic(), ())

    def close(self):
        pass


def hang():
    time.sleep(30)


async def main():
    me = Me(lambda: b"m", 1.0, b"m", registered=True)
    settings = Worker(beat_s=0.1, ttl_s=1.0, stall_max_s=1.0)
    watch = Watch(lambda worker, beat: None, Stalls(Metrics()))
    keeper = Keeper(Line(), me, ServerClock(), settings, watch)
    print("begun", flush=True)
    keeper.start()
    if "hang" in sys.argv:
        hang()
    for _ in range(40):
        await keeper.tick()
        await asyncio.sleep(0.05)
    keeper.stop()
    print("ended well", flush=True)


asyncio.run(main())
"""


@contextmanager
def begun(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a keeper, once it has begun."""
    command = tethered([sys.executable, "-c", PROGRAM, *words], signal.SIGKILL)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process


@pytest.mark.parametrize(
    ("fault", "words"),
    [("hang", "the event loop stood still"), ("fail", "the keeper failed")],
)
def test_a_process_that_can_not_be_helped_is_ended(fault: str, words: str) -> None:
    began = time.monotonic()
    with begun(fault) as process:
        _, said = process.communicate(timeout=crowded(10))
    assert process.returncode == EXIT_STALLED
    assert time.monotonic() - began < crowded(5)
    assert words in said
    assert ("in hang" if fault == "hang" else "ZeroDivisionError") in said, "it shows where"


def test_a_process_that_was_stopped_as_a_whole_goes_on() -> None:
    with begun() as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.3)  # longer than the event loop may stand still
        process.send_signal(signal.SIGCONT)
        out, said = process.communicate(timeout=10)
    *told, last = out.splitlines()
    assert (process.returncode, last, said) == (0, "ended well", "")
    assert all("loop_stalled" in line or "nobody could look" in line for line in told)
