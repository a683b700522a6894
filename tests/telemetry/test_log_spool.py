"""Nobody waits for a stream that is stuck, and what is lost is counted."""

import os
import threading
from collections.abc import Iterator

import pytest

from penstock.telemetry.log_spool import Spool

PIPE_BYTES = 65536


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def spool(file: int, lines_max: int = 1000) -> Spool:
    return Spool(file, lines_max, lambda: None)


def test_lines_come_out_in_their_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    way = spool(writing)
    wanted = "".join(f"line {n}\n" for n in range(500))
    for n in range(500):
        way.write(f"line {n}\n")
    assert way.drain(10)
    assert os.read(reading, PIPE_BYTES).decode() == wanted
    assert way.dropped == 0


def test_a_stuck_stream_holds_nobody_up_and_what_finds_no_room_is_counted(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    filled = os.write(writing, b"." * PIPE_BYTES)
    os.set_blocking(writing, True)
    way = spool(writing, lines_max=10)
    done = threading.Event()

    def write() -> None:
        for n in range(50):
            way.write(f"line {n}\n")
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(10), "a line waited for the stream"
    assert not way.drain(0.05)
    # The thread holds some in its hands, and so many more may wait.
    assert 30 <= way.dropped <= 40
    assert len(os.read(reading, filled)) == filled
    assert way.drain(10)
    lines = os.read(reading, PIPE_BYTES).splitlines()
    assert lines[0] == b"line 0"
    assert len(lines) == 50 - way.dropped


def test_a_stream_that_is_gone_costs_lines_and_nothing_else() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    way = spool(writing)
    way.write("nobody reads this\n")
    assert way.drain(10)
    assert way.dropped == 1
    os.close(writing)


def test_a_long_line_comes_out_whole_and_others_in_pieces_of_a_pipe(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    way = spool(writing)
    long, short = "x" * 10_000 + "\n", "y" * 1000 + "\n"
    for line in (short, long, short):
        way.write(line)
    assert way.drain(10)
    assert os.read(reading, PIPE_BYTES).decode() == short + long + short


def test_a_copy_of_the_process_writes_by_itself(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    way = spool(writing)
    way.write("the parent's\n")
    assert way.drain(10)
    pid = os.fork()
    if pid == 0:  # no thread writes here
        way.write("the copy's\n")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(reading, PIPE_BYTES) == b"the parent's\nthe copy's\n"
