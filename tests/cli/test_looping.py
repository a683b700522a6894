"""The event loop of a server goes on whatever leaves it, but for the server's own end."""

import asyncio
import sys
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from penstock.cli import looping

Loops = Callable[[], asyncio.AbstractEventLoop] | None


@pytest.fixture(params=["the fastest", "the standard library's"])
def _loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "the fastest":
        monkeypatch.setattr(looping, "_loop_factory", lambda: asyncio.SelectorEventLoop)


def exits() -> None:
    sys.exit(3)


async def exiting() -> None:
    sys.exit(3)


@pytest.mark.usefixtures("_loops")
def test_what_exits_beside_the_work_does_not_end_it() -> None:
    async def work() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        tasks = [loop.create_task(exiting()) for _ in range(2)]
        for n in range(3):
            loop.call_soon(exits)
            loop.call_soon(seen.append, n)
            loop.call_later(0.001, exits)
            loop.call_later(0.002, seen.append, 10 + n)
        await asyncio.sleep(0.05)
        for task in tasks:
            assert isinstance(task.exception(), SystemExit)
        return sorted(seen)

    with capture_logs() as told:
        assert looping.run_with_handlers(work()) == [0, 1, 2, 10, 11, 12]
    assert {line["event"] for line in told} == {"exit_in_handler_ignored"}, "one tells of several"


@pytest.mark.usefixtures("_loops")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_what_the_work_itself_raises_ends_it(error: type[BaseException]) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(error):
        looping.run_with_handlers(work())
