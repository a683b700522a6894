"""A state machine over submit, promote, claim, start, settle, reap, crash, cancel, retry, expiry
and loss.

Hypothesis draws sequences of what workers, callers and accidents do; each step is done to real
PostgreSQL and Redis through the store's and the queue's classes and compared with a small
reference model. After each sequence all faults end and everything must drain (reliability.md,
section 2: I1, I2, I4, I6, I7, I9). A failure prints its steps and a blob to repeat them; the seed
of a run is printed with its figures, and `--hypothesis-seed` takes it.
"""

import asyncio
import random
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from penstock.domain.attempt import CANCELLED, LOST, RELEASED, Ending
from penstock.domain.job import OnLost
from penstock.domain.retry import Backoff, Curve, Jitter
from tests.properties import world
from tests.properties.model import DUE, RUNNING, Job, Worker
from tests.properties.world import KINDS, QUEUES, World
from tests.support import making
from tests.support.figures import figures
from tests.support.servers import Servers

SEQUENCES = 200
STEPS = 50
_SEED = 2026  # unless profile or option ask for another (tests/conftest.py)

T = TypeVar("T")

A_LITTLE = Backoff(Curve.FIXED, base_s=0.005, factor=1.0, max_s=0.005, jitter=Jitter.NONE)
ENDINGS = (
    # After these a job is often due again.
    *(making.FAILURE, making.TIMEOUT, making.CRASH, RELEASED, LOST),
    *(making.SUCCESS, making.FINAL_FAILURE, CANCELLED),
)
ANY = st.integers(0, 99)  # picks one of what there is
LOOPS = ("reap", "adopt", "expire", "reconcile", "promote")
queues = st.sampled_from(QUEUES)


class EngineMachine(RuleBasedStateMachine):
    """One sequence. `runner` and `world` outlive it; the world begins anew with each.

    Hypothesis leaves out about half of the rules in each sequence, so what a job can't do without
    is in few rules. What has started depends on the time that steps take: no precondition and no
    strategy may ask for it, or a sequence could not be repeated.
    """

    runner: ClassVar[asyncio.Runner]
    world: ClassVar[World]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.do(self.world.begin())
        jobs = [making.new_job(queue=queue, backoff=A_LITTLE) for queue in QUEUES]
        self.do(self.world.submit(jobs, enqueued=True))

    def do(self, happening: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(happening)

    def job(self, n: int, *places: str) -> Job:
        """A job that stands in one of these places, else any."""
        jobs = list(self.world.model.jobs.values())
        return pick(n, [job for job in jobs if job.place in places] or jobs)

    def worker(self, n: int, *, busy: bool = False) -> Worker:
        """A worker that still has its memory, if need be one that thinks it runs something."""
        awake = [worker for worker in self.world.model.workers if not worker.crashed]
        return pick(n, [worker for worker in awake if worker.runs and busy] or awake)

    @rule(
        queue=queues,
        kind=st.sampled_from(KINDS),
        priority=st.integers(0, 9),
        delay_s=st.sampled_from([None, None, 0.01]),
        max_attempts=st.integers(1, 4),
        on_lost=st.sampled_from(OnLost),
        count=st.integers(1, 3),
        enqueued=st.booleans(),
        unique_key=st.sampled_from([None, None, None, "a", "b"]),
        return_holder=st.booleans(),
        ttl_s=st.sampled_from([None, 3600.0]),
    )
    def submit(self, *, count: int, enqueued: bool, **fields: Any) -> None:
        jobs = making.new_jobs(count, backoff=A_LITTLE, **fields)
        self.do(self.world.submit(jobs, enqueued=enqueued))

    @rule(n=ANY, enqueued=st.booleans())
    def submit_again(self, n: int, *, enqueued: bool) -> None:
        self.do(self.world.submit([self.job(n).new], enqueued=enqueued))

    @rule(
        n=ANY,
        queue=queues,
        kinds=st.sampled_from([KINDS, KINDS[:1], KINDS[1:]]),
        lease_s=st.sampled_from([0.03, 0.001]),
    )
    def claim(self, n: int, queue: str, kinds: tuple[str, ...], lease_s: float) -> None:
        self.do(self.world.claim(self.worker(n), queue, kinds, lease_s))

    @rule(n=ANY, m=ANY, answered=st.sampled_from([True, True, False]))
    def start_what_was_claimed_and_another(self, n: int, m: int, *, answered: bool) -> None:
        worker = self.worker(n)
        ids = [id_ for claimed in worker.claimed.values() for id_ in claimed]
        worker.claimed.clear()
        ids.append(self.job(m, DUE).new.id)  # as a worker does that asks Postgres
        self.do(self.world.start(worker, ids, answered=answered))

    @rule(n=ANY, queue=queues, is_race=st.booleans())
    def start_from_postgres(self, n: int, queue: str, *, is_race: bool) -> None:
        first, second = self.worker(n), self.worker(n + 1)
        if is_race:
            self.do(self.world.race_to_start(first, second))
        else:
            head = self.do(self.world.db.line.head(queue, KINDS, 3, world.AGING_MS))
            self.do(self.world.start(first, [due.id for due in head], answered=True))

    @rule(n=ANY, ending=st.sampled_from(ENDINGS), told=st.booleans(), acked=st.booleans())
    def settle(self, n: int, ending: Ending, *, told: bool, acked: bool) -> None:
        worker = self.worker(n, busy=True)
        if not worker.runs:
            ids = [self.job(n, DUE).new.id, self.job(n + 1, DUE).new.id]
            self.do(self.world.start(worker, ids, answered=True))
        for run in [worker.runs.pop(0) for _ in worker.runs[:2]]:
            self.do(self.world.settle(run, ending, told=told, acked=acked))

    @rule(n=ANY, ending=st.sampled_from(ENDINGS), told=st.booleans(), is_race=st.booleans())
    def settle_late_or_again(self, n: int, ending: Ending, *, told: bool, is_race: bool) -> None:
        """Any attempt that a worker ever heard of; the youngest are the likeliest."""
        runs = self.world.model.runs
        for run in [runs[-1 - n % len(runs)]] if runs else []:
            if is_race:
                self.do(self.world.race_to_settle(run))
            else:
                self.do(self.world.settle(run, ending, told=told))

    @rule(n=ANY)
    def cancel(self, n: int) -> None:
        self.do(self.world.cancel(self.job(n, DUE, RUNNING).new.id))

    @rule(n=ANY, enqueued=st.booleans())
    def retry(self, n: int, *, enqueued: bool) -> None:
        self.do(self.world.retry(self.job(n, "dead", "cancelled").new.id, enqueued=enqueued))

    @rule(n=ANY)
    def outlive(self, n: int) -> None:
        self.do(self.world.outlive(self.job(n, DUE).new.id))

    @rule(queue=queues, paused=st.sampled_from([True, False, False]))
    def pause_or_resume(self, queue: str, *, paused: bool) -> None:
        self.do(self.world.pause(queue, paused=paused))

    @rule(n=ANY, how=st.sampled_from(["crashes", "misses its beats", "misses them for a while"]))
    def a_worker(self, n: int, how: str) -> None:
        worker = self.worker(n, busy=True)
        self.do(self.world.expire(worker))
        if how == "crashes":
            self.do(self.world.crash(worker))
        elif how == "misses them for a while":
            self.do(self.world.beat(worker))

    @rule()
    def redis_is_flushed(self) -> None:
        self.do(self.world.redis.flush())

    @rule(n=ANY, queue=queues, what=st.sampled_from(LOOPS))
    def a_loop_turns(self, n: int, queue: str, what: str) -> None:
        if what == "reap":
            self.do(self.world.reap())
        elif what == "adopt":
            self.do(self.world.adopt(self.worker(n)))
        elif what == "expire":
            self.do(self.world.end_expired())
        elif what == "reconcile":
            self.do(self.world.reconcile())
        else:
            self.do(self.world.shelves.promote(queue, 1000))
            self.do(self.world.return_expired(queue))

    @invariant()
    def postgres_holds_what_the_model_holds(self) -> None:
        type(self).steps += 1
        self.do(self.world.check())

    def teardown(self) -> None:
        self.do(self.world.heal_and_drain())


def pick(n: int, things: Sequence[T]) -> T:
    return things[n % len(things)]


@pytest.fixture
def machine(servers: Servers) -> Iterator[type[EngineMachine]]:
    """The machine on its world: one database and one event loop for all sequences."""
    with asyncio.Runner() as runner:
        dsn = runner.run(servers.fresh_database())
        opening = world.opened(dsn, servers.fresh_redis())
        EngineMachine.runner, EngineMachine.world = runner, runner.run(opening.__aenter__())
        yield EngineMachine
        runner.run(opening.__aexit__(None, None, None))


@pytest.mark.timeout(600)  # a failure is shrunk for up to 300 s
def test_no_sequence_of_events_loses_repeats_or_confuses_a_job(
    machine: type[EngineMachine], pytestconfig: pytest.Config
) -> None:
    drawn = _SEED if settings().derandomize else random.getrandbits(32)
    number = pytestconfig.getoption("hypothesis_seed", None) or drawn
    figures("engine machine", seed=number)
    run_state_machine_as_test(
        seed(int(number))(machine),
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=False,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    figures("engine machine", sequences=SEQUENCES, steps=machine.steps)
