"""A job in a process of its own: it ends as anywhere else, or shows that it is what kills."""

import asyncio
import math
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.domain.ids import nth_of, text
from penstock.domain.job import State
from penstock.domain.workflow import NO_KIN, Kin, Parent
from penstock.egress.client import Egress
from penstock.handlers.context import Context, LogLimits, LogLine, Services
from penstock.handlers.gathered import Bounds
from penstock.handlers.registry import Registry
from penstock.loops.children import COMMAND, Child, Children
from penstock.loops.frames import Setup, submitted_of
from penstock.loops.pool import Lane, Pool, Run
from penstock.settings import Worker
from penstock.telemetry.metrics import Metrics
from tests.support import making
from tests.support.execution_log import ExecutionLog
from tests.support.figures import figures
from tests.support.waiting import eventually

MODULES = (
    *("penstock.handlers.samples", "tests.support.kinds", "tests.support.unruly"),
    "tests.support.fanning",
)
REGISTRY = Registry.load(MODULES)
SETUP = Setup(MODULES, tuple(sys.path), egress_allow=("127.0.0.0/8",))
MIB = 1024 * 1024


class Nursery:
    """A pool with child processes only; keeps how each run ended."""

    def __init__(self, children: Children, places: int, cancel_grace_s: float) -> None:
        self.lane = Lane("children", (), places, children)
        self.metrics = Metrics()
        self.endings: dict[Run, Ending] = {}
        settings = Worker(cancel_grace_s=cancel_grace_s)
        self._threads = ThreadPoolExecutor(1)
        self.pool = Pool([self.lane], self._threads, settings, self._hear_end, lambda: None)

    def put(self, kind: str, payload: Any = None, *, kin: Kin = NO_KIN, **fields: Any) -> Run:
        text = orjson.dumps(payload).decode()
        job = making.started(kind=kind, payload=text, **{"losses": 2, **fields})
        context = Context(job, math.inf, Services(http=Egress()), LogLimits())
        context.kin = kin
        handler = REGISTRY.get(kind)
        assert handler is not None
        run = Run(job, handler, context, math.inf, self.lane, Child(job, context))
        self.pool.put([run])
        return run

    async def ended(self, run: Run, within_s: float = 20.0) -> Ending:
        await self.when(lambda: run in self.endings, "it has ended", within_s)
        return self.endings[run]

    async def begun(self, run: Run) -> int:
        """Its process' id, once it has its job."""
        await self.when(lambda: run.deadline < math.inf, "it has begun")
        assert run.child is not None
        assert run.child.born is not None
        return run.child.born.pid

    async def when(self, is_so: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
        async def look() -> bool:
            return is_so()

        await eventually(look, what, within_s, every_s=0.01)

    async def result(self, kind: str, payload: Any = None, **fields: Any) -> Any:
        ending = await self.ended(self.put(kind, payload, **fields))
        assert ending.outcome is Outcome.SUCCEEDED, ending
        return orjson.loads(ending.result or "")

    async def enforce(self) -> None:
        while True:
            pause = await self.pool.check_deadlines()
            with_timeout = asyncio.wait_for(self.pool.checked.wait(), pause)
            await asyncio.gather(with_timeout, return_exceptions=True)

    def _hear_end(self, run: Run, ending: Ending) -> None:
        assert run not in self.endings, "a run has ended twice"
        self.endings[run] = ending


@asynccontextmanager
async def nursery(
    places: int = 4,
    cancel_grace_s: float = 0.3,
    setup: Setup = SETUP,
    command: tuple[str, ...] = COMMAND,
    start_max_s: float = 30.0,
) -> AsyncIterator[Nursery]:
    children = Children(setup, places, start_max_s, Metrics(), command)
    one = Nursery(children, places, cancel_grace_s)
    tasks = [asyncio.create_task(one.pool.run()), asyncio.create_task(one.enforce())]
    try:
        yield one
    finally:
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=5)
        await children.close()
    assert len(done) == 2, "the pool does not close"


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return _stat(pid)[0] == "Z"


def _stat(pid: int) -> list[str]:
    """A process' state, its parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def test_what_ends_well_in_a_replica_ends_well_in_a_child() -> None:
    async with nursery() as one:
        failing, chatty = one.put("logged", {"failures": 9}), one.put("chatty", {"lines": 30})
        big = "x" * 900_000
        assert await one.result("echo", big) == big
        assert await one.result("logged-thread", {"seconds": 0.01}) == {"seconds": 0.01}
        failed = await one.ended(failing)
        assert failed.outcome is Outcome.FAILED
        assert failed.failure is not None
        assert (failed.failure.type, failed.failure.message) == ("ValueError", "as asked")
        assert (await one.ended(chatty)).outcome is Outcome.SUCCEEDED
        lines = chatty.log_rows()
        assert [line[2] for line in lines] == list(range(1, 31))
        assert lines[29][5] == "line number=29"


async def test_what_a_child_has_of_its_parent() -> None:
    os.environ["PENSTOCK_AUTH__JWT_SECRET"] = "not for children"
    kept = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        async with nursery() as one:
            found = await one.result("surroundings", timeout_s=40.0, attempt=5, tags=("a", "b"))
    finally:
        os.close(kept)
        del os.environ["PENSTOCK_AUTH__JWT_SECRET"]
    assert found["pid"] != os.getpid()
    assert found["environ"] == []
    assert __file__ not in found["files"].values()
    sockets = [name for name, file in found["files"].items() if file.startswith("socket")]
    figures("a child's files", files=sorted(found["files"].values()))
    assert len(sockets) <= 5, "the pipes, and what its own event loop wakes itself with"
    assert (found["core"], found["oom_score_adj"], found["stdin"]) == (0, 1000, "")
    assert 35 < found["remaining_s"] <= 40
    assert (found["attempt"], found["tags"]) == (5, ["a", "b"])


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("poison", "exit", "exited with 7 before its handler had returned"),
        ("poison", "exit-well", "exited with 0 before its handler had returned"),
        ("poison", "segfault", "was ended by SIGSEGV"),
        ("poison", "kill", "was ended by SIGKILL"),
        ("poison", "stack", "was ended by SIGSEGV"),
        ("poison-thread", "exit", "exited with 7 before its handler had returned"),
        ("poison-thread", "segfault", "was ended by SIGSEGV"),
    ],
)
async def test_a_child_that_dies_has_crashed_and_leaves_its_last_words(
    kind: str, how: str, message: str
) -> None:
    async with nursery() as one:
        run = one.put(kind, {"how": how})
        ending = await one.ended(run)
        assert ending.outcome is Outcome.CRASHED
        assert ending.failure is not None
        assert ending.failure.type == "crashed"
        assert ending.failure.message == f"the child process {message}"
        if kind == "poison":
            said = ending.failure.details["stderr"]
            assert "what it printed last" in said
            assert [row[5] for row in run.log_rows()] == [
                f"the last that was heard of it how={how}"
            ]
            told = run.progress_row()
            assert told is not None
            assert told[2:4] == (50.0, "half dead")
            if how == "segfault":
                assert any("Segmentation fault" in line for line in said)
                assert any("_segfault" in line for line in said), "and where"


async def test_a_child_that_spins_is_killed_at_its_deadline_and_leaks_nothing() -> None:
    async with nursery(places=1) as one:
        for kind in ("poison", "poison-thread"):
            began = time.monotonic()
            run = one.put(kind, {"how": "spin"}, timeout_s=0.3)
            pid = await one.begun(run)
            ending = await one.ended(run)
            assert ending.outcome is Outcome.TIMED_OUT
            assert time.monotonic() - began < 10
            assert is_gone(pid)
        assert one.pool.leaked() == 0
        assert await one.result("echo", 1) == 1, "its place is free again"


@pytest.mark.parametrize("kind", ["logged", "logged-thread", "stubborn", "blocking"])
async def test_a_child_is_cancelled_and_then_killed(kind: str) -> None:
    async with nursery() as one:
        run = one.put(kind, {"seconds": 60})
        pid = await one.begun(run)
        one.pool.stop(run, Outcome.CANCELLED)
        assert (await one.ended(run)).outcome is Outcome.CANCELLED
        assert is_gone(pid)


async def test_a_stop_counts_before_the_child_has_its_job_and_while_it_waits() -> None:
    async with nursery(places=1) as one:
        first, second = one.put("logged", {"seconds": 60}), one.put("logged", {"seconds": 60})
        assert first.child is not None
        child = first.child
        await one.when(lambda: child.born is not None, "its process has been started")
        one.pool.stop(second, Outcome.CANCELLED)
        one.pool.stop(first, Outcome.RELEASED)
        assert (await one.ended(second)).outcome is Outcome.CANCELLED
        assert (await one.ended(first)).outcome is Outcome.RELEASED


async def test_the_wait_for_a_place_does_not_eat_the_deadline() -> None:
    async with nursery(places=1) as one:
        runs = [one.put("logged", {"seconds": 0.5}, timeout_s=0.9) for _ in range(2)]
        endings = [await one.ended(run) for run in runs]
        assert [ending.outcome for ending in endings] == [Outcome.SUCCEEDED] * 2


async def test_a_signal_to_what_a_handler_has_forked_does_what_it_always_does() -> None:
    async with nursery() as one:
        assert await one.result("signals-a-fork") == [-15, 2]


async def test_what_finds_no_room_is_handed_back_until_about_its_turn() -> None:
    async with nursery(places=1) as one:
        runs = [one.put("echo", n) for n in range(14)]
        back = [one.endings[run] for run in runs if run in one.endings]
        assert 5 <= len(back) <= 6
        assert {ending.outcome for ending in back} == {Outcome.RELEASED}
        pauses = [ending.retry_after_s or 0 for ending in back]
        assert pauses == sorted(pauses)
        assert pauses[0] >= 1
        assert pauses[-1] > pauses[0]
        for run in runs[:3]:
            assert (await one.ended(run)).outcome is Outcome.SUCCEEDED
        for run in runs:
            one.pool.stop(run, Outcome.RELEASED)


# A nursery whose only child says something else than that it is ready.
_STRANGE = """
import os, signal, socket, struct
control, record = socket.socket(fileno=0), struct.Struct("!cii")
_, (frames, _), _, _ = socket.recv_fds(control, 1, 2)
if (pid := os.fork()) == 0:
    signal.pause()
control.sendall(record.pack(b"b", pid, 0))
os.write(frames, b'\\0\\0\\0\\n{"line":1}')
os.waitpid(pid, 0)
control.sendall(record.pack(b"e", pid, -9))
signal.pause()
"""


@pytest.mark.parametrize(
    ("command", "setup"),
    [
        ((sys.executable, "-c", _STRANGE), SETUP),
        (("/no/such/program",), SETUP),
        ((sys.executable, "-c", "raise SystemExit('no module')"), SETUP),
        ((sys.executable, "-c", "import time; time.sleep(60)"), SETUP),
        ((sys.executable, "-c", "print('not a frame', flush=True); input()"), SETUP),
        (COMMAND, replace(SETUP, modules=("there.is.none",))),
        (COMMAND, replace(SETUP, memory_max_bytes=64 * MIB)),
    ],
    ids=["strange", "no program", "ends", "hangs", "babbles", "no module", "no memory"],
)
async def test_a_child_that_never_came_to_its_job_costs_the_job_nothing(
    command: tuple[str, ...], setup: Setup
) -> None:
    async with nursery(command=command, setup=setup, start_max_s=2.0) as one:
        ending = await one.ended(one.put("echo"))
        assert (ending.outcome, ending.retry_after_s) == (Outcome.RELEASED, 5.0)


async def test_memory_beyond_the_limit_fails_the_attempt_and_nobody_else() -> None:
    async with nursery(setup=replace(SETUP, memory_max_bytes=1024 * MIB)) as one:
        big, small = one.put("hog", {"mib": 2048}), one.put("hog", {"mib": 20})
        assert (await one.ended(small)).outcome is Outcome.SUCCEEDED
        ending = await one.ended(big)
        assert ending.outcome is Outcome.FAILED
        assert ending.failure is not None
        assert ending.failure.type == "MemoryError"


@pytest.mark.parametrize("how", ["wait", "block"])
async def test_the_side_effects_of_a_child_end_with_its_parent(how: str, tmp_path: Path) -> None:
    log = ExecutionLog(tmp_path / "log")
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PARENT, how),
        env={**os.environ, "EXECUTION_LOG": str(log.path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    async def is_ticking() -> bool:
        return len(log.read()) > 5

    await eventually(is_ticking, "it has side effects", 20.0)
    (pid,) = log.pids()
    assert pid != parent.pid
    parent.kill()
    await parent.wait()

    async def look() -> bool:
        return is_gone(pid)

    await eventually(look, "the child is gone", 2.0)
    count = len(log.read())
    assert all(event.pid == pid for event in log.events)
    await asyncio.sleep(0.1)  # five ticks' time: nothing must come
    assert len(log.read()) == count


_PARENT = """
import asyncio, sys
from tests.loops.test_children import nursery

async def main():
    async with nursery() as one:
        run = one.put("ticking", {"seconds": 60, "how": sys.argv[1]})
        await one.ended(run, 60)

asyncio.run(main())
"""


async def test_a_nursery_whose_replica_dies_amid_their_talk_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    files = os.pipe()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(*COMMAND, str(os.getpid())), stdin=theirs.fileno(), stderr=asyncio.subprocess.PIPE
        )
    socket.send_fds(ours, [b"+"], files)
    ours.close()  # before it can answer
    for file in files:
        os.close(file)
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, said) == (0, b"")


async def test_signals_that_end_a_service_leave_its_children_to_their_parent() -> None:
    async with nursery() as one:
        run = one.put("logged", {"seconds": 0.5})
        pid = await one.begun(run)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(pid, number)
        assert (await one.ended(run)).outcome is Outcome.SUCCEEDED


async def test_a_nursery_that_dies_takes_its_children_along_and_they_are_lost() -> None:
    async with nursery() as one:
        run = one.put("logged", {"seconds": 60})
        pid = await one.begun(run)
        mother = int(_stat(pid)[1])
        assert mother != os.getpid()
        os.kill(mother, signal.SIGKILL)
        assert (await one.ended(run)).outcome is Outcome.LOST
        assert is_gone(pid)
        assert await one.result("echo", 1) == 1, "there is a new one"


async def test_who_was_lost_with_a_nursery_has_one_of_his_own_and_is_charged_for_it() -> None:
    async with nursery() as one:
        first = one.put("strikes-its-nursery", signal.SIGKILL)
        assert (await one.ended(first)).outcome is Outcome.LOST
        beside = one.put("logged", {"seconds": 3})
        await one.begun(beside)
        again = one.put("strikes-its-nursery", signal.SIGKILL, id=first.job.id, losses=3)
        ending = await one.ended(again)
        failure = Failure("crashed", "the child process died with its nursery")
        assert (ending.outcome, ending.failure) == (Outcome.CRASHED, failure)
        assert (await one.ended(beside)).outcome is Outcome.SUCCEEDED


async def test_who_was_lost_with_replicas_alone_shares_the_nursery() -> None:
    async with nursery() as one:
        beside, run = one.put("logged", {"seconds": 60}), one.put("logged", {"seconds": 60})
        often = one.put("logged", {"seconds": 60}, losses=9)
        mothers = {_stat(await one.begun(each))[1] for each in (beside, run, often)}
        assert len(mothers) == 1


async def test_a_nursery_that_was_stopped_holds_nobody_up_for_long() -> None:
    async with nursery() as one:
        run = one.put("strikes-its-nursery", signal.SIGSTOP)
        assert (await one.ended(run)).outcome is Outcome.SUCCEEDED
        assert await one.result("echo", 1) == 1, "there is a new one"


async def test_what_handlers_do_to_directory_and_environment_reaches_no_nursery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nursery() as one:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONHOME", "/nowhere")
        assert await one.result("echo", 1) == 1


@pytest.mark.parametrize(
    "tale",
    [
        {"ending": {**asdict(Ending(Outcome.SUCCEEDED)), "result": 5}},
        {"ending": {**asdict(Ending(Outcome.SUCCEEDED)), "retryable": "no"}},
        {"ending": {**asdict(Ending(Outcome.FAILED)), "retry_after_s": 1e300}},
        {"ending": {**asdict(Ending(Outcome.FAILED)), "failure": {"type": 5, "message": "m"}}},
        {"ending": asdict(Ending(Outcome.RELEASED))},
        {"line": [1.0, "loud", "x", 1]},
        {"line": [1e300, "info", "x", 1]},
        {"line": [1.0, "info", 5, 1]},
        {"progress": [1e300, None, 1.0]},
        {"progress": [5, 5, 1.0]},
    ],
    ids=str,
)
async def test_a_child_that_tells_what_no_child_tells_has_crashed(tale: dict[str, Any]) -> None:
    async with nursery() as one:
        ending = await one.ended(one.put("tells", [orjson.dumps(tale).decode()]))
        assert ending.outcome is Outcome.CRASHED
        assert ending.failure is not None
        assert "no frame" in str(ending.failure.details)


async def test_what_a_child_tells_is_fit_to_be_stored() -> None:
    tales = [{"progress": [5, "c\0d", 1.0]}, {"line": [1.0, "info", "a\0b" * 9000, 1]}]
    async with nursery() as one:
        run = one.put("tells", [orjson.dumps(tale).decode() for tale in tales])
        lines: list[LogLine] = []

        def heard() -> bool:
            lines.extend(run.context.take_logs())
            return bool(lines)

        await one.when(heard, "its line is heard")
        progress = run.context.take_progress()
        assert progress is not None
        assert "\0" not in f"{lines[0].message}{progress.message}"
        assert len(lines[0].message) < 9000


async def test_what_a_handler_has_started_ends_with_its_child() -> None:
    async with nursery() as one:
        pid = await one.result("starts-another")
        await one.when(lambda: is_gone(pid), "what it started is gone", 5.0)


async def test_many_children_at_once() -> None:
    async with nursery(places=64) as one:
        assert await one.result("echo", 0) == 0
        began = time.monotonic()
        runs = [one.put("logged", {"seconds": 0.5}) for _ in range(64)]
        endings = [await one.ended(run, 60) for run in runs]
        figures("64 children of 0.5 s", seconds=time.monotonic() - began)
        assert {ending.outcome for ending in endings} == {Outcome.SUCCEEDED}


async def test_what_a_child_costs() -> None:
    async with nursery() as one:
        began = time.monotonic()
        for n in range(5):
            assert await one.result("echo", n) == n
        figures("a child", seconds_each=(time.monotonic() - began) / 5)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_child_has_no_socket_of_its_nursery(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Else what a handler writes to all its sockets would be told by the nursery."""

    async def shared() -> Any:
        async with nursery() as one:
            return await one.result("shares-with-its-nursery")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(shared()) == []


async def test_a_nursery_that_tells_nonsense_is_given_up() -> None:
    talks = "import os, time; os.write(0, b'e' * 90); time.sleep(60)"
    async with nursery(command=(sys.executable, "-c", talks)) as one:
        ending = await one.ended(one.put("echo"))
        assert ending.outcome is Outcome.RELEASED


# Graphs.


async def test_a_child_is_told_of_its_kin_and_gets_results_in_its_payload() -> None:
    parents = [
        Parent(making.job_id(), "a", State.SUCCEEDED, '{"rows":[1,"\u00e4"]}'),
        Parent(making.job_id(), "b", State.DEAD),
    ]
    kin = Kin("mine", {one.name: one for one in parents})
    payload = {"$result": "a", "pointer": "/rows"}
    async with nursery() as one:
        workflow = making.job_id()
        seen = await one.result("seen", payload, kin=kin, graph_id=workflow)
        assert seen == {
            "payload": [1, "\u00e4"],
            "name": "mine",
            "workflow_id": text(workflow),
            "parents": {"a": ["succeeded", {"rows": [1, "\u00e4"]}], "b": ["dead", None]},
        }
        run = one.put("seen", {"$result": "c"}, kin=kin, graph_id=workflow)
        failure = (await one.ended(run)).failure
        assert failure is not None
        assert failure.type == "reference-unresolved"


@pytest.mark.parametrize("kind", ["fan", "fan-thread"])
async def test_what_a_child_submits_is_stored_by_its_parent(kind: str) -> None:
    jobs = [{"kind": "echo", "payload": '\u00e4"\\'}, {"kind": "sleep", "depends_on": ["x"]}]
    async with nursery() as one:
        run = one.put(kind, {"jobs": jobs})
        ending = await one.ended(run)
        assert orjson.loads(ending.result or "") == {
            "ids": [text(nth_of(run.job.id, n)) for n in (1, 2)]
        }
        assert [orjson.loads(job) for job in run.context.take_submitted()] == jobs
        failed = one.put(kind, {"jobs": jobs, "fails": True})
        assert (await one.ended(failed)).outcome is Outcome.FAILED
        assert failed.context.take_submitted() == []


async def test_a_child_may_submit_as_many_jobs_as_fit_in_a_frame() -> None:
    bounds = Bounds(submit_max=20, submit_max_bytes=3 * MIB)
    jobs = [{"kind": "echo", "payload": '"' * 100_000}] * 10
    async with nursery(setup=replace(SETUP, bounds=bounds)) as one:
        run = one.put("fan", {"jobs": jobs})
        assert (await one.ended(run)).outcome is Outcome.SUCCEEDED
        assert len(run.context.take_submitted()) == 10
        run = one.put("fan", {"jobs": [{"kind": "echo"}] * 21})
        failure = (await one.ended(run)).failure
        assert failure is not None
        assert failure.type == "children-refused"


async def test_a_child_that_submits_more_than_it_may_has_crashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It can't by our code; but what runs there may change that."""
    monkeypatch.setattr(sys.modules[__name__], "Services", partial(Services, bounds=Bounds(16, 2)))
    async with nursery() as one:
        run = one.put("fan", {"jobs": [{"kind": "echo"}] * 3})
        assert (await one.ended(run)).outcome is Outcome.CRASHED


@pytest.mark.parametrize("jobs", [None, "{}", [1], ["[]"], ["{"], [{"kind": "echo"}]])
def test_jobs_in_a_frame_that_are_none_are_refused(jobs: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        submitted_of({"jobs": jobs})
