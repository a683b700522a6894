"""The real servers under the machine, each thing that can happen to them done and compared with
the reference model."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from penstock.domain.attempt import LOST, Ending, Outcome
from penstock.domain.ids import JobId
from penstock.domain.job import Due, NewJob, Started
from penstock.domain.submission import Refuse, Store, Submission
from penstock.queue.shelves import Off
from penstock.store.jobs import Settlement
from penstock.store.line import Round
from penstock.store.rows import ms
from penstock.store.submissions import first_ready_at
from tests.properties.model import DUE, PATIENCE, RUNNING, Job, Model, Worker
from tests.support import database, making, redis_shelves
from tests.support.database import Database, settlement
from tests.support.redis_shelves import RedisShelves
from tests.support.walking import pages

QUEUES = ("alpha", "beta")
KINDS = ("echo", "sum")
TTL_S = 10.0
AGING_MS = 60_000.0

# One row for each place that a job's row is found in: a job in two places is found twice.
_PLACES = """
SELECT job_id, 'due', attempt, failures, losses, crashes, NULL::uuid, false FROM job_due
UNION ALL
SELECT job_id, 'running', attempt, failures, losses, crashes, worker_id,
       cancel_requested_at IS NOT NULL
FROM job_running
UNION ALL
SELECT job_id, state, attempt, failures, losses, crashes, NULL, false FROM job_ended
"""
_ATTEMPTS = "SELECT job_id, attempt, worker_id, outcome FROM attempts"
_COUNTS = "SELECT state, sum(delta)::int FROM queue_counts GROUP BY state HAVING sum(delta) <> 0"
_OVERLAPPING = """
SELECT a.job_id FROM attempts a
JOIN attempts b ON b.job_id = a.job_id AND b.attempt = a.attempt + 1
WHERE b.started_at < a.finished_at
"""
_EXPIRE = """
UPDATE workers SET expires_at = clock_timestamp() - interval '1 s' WHERE worker_id = $1
"""
_OUTLIVE = """
UPDATE job_due SET expires_at = clock_timestamp() WHERE job_id = $1 AND expires_at IS NOT NULL
"""
_KEYS = "SELECT job_id FROM job_unique"
_STEADY_PULSE = """
UPDATE pulse SET last_beat = clock_timestamp(),
                 unbroken_since = clock_timestamp() - interval '1 hour'
"""


class World:
    """`db` and `shelves` are real; `model` is what they should hold."""

    def __init__(self, db: Database, shelves: RedisShelves) -> None:
        self.db, self.redis, self.shelves = db, shelves, shelves.shelves
        self.model = Model()

    async def begin(self) -> None:
        await self.db.empty()
        await self.redis.flush()
        self.model = Model()
        for _ in range(2):
            await self.hire()

    async def hire(self) -> Worker:
        worker = Worker(await self.db.worker())
        self.model.workers.append(worker)
        return worker

    async def submit(self, jobs: Sequence[NewJob], *, enqueued: bool) -> None:
        ((done,), now) = await self.db.submissions.store_keyed([Submission(jobs)])
        expected = self.model.answer(jobs)
        if expected is None:
            assert isinstance(done, Refuse), "a live job's unique key was given away"
            return
        assert isinstance(done, Store)
        assert done.ids == expected, "not the jobs that hold the keys"
        assert {job.id for job in done.new} == set(expected) & {job.id for job in jobs}
        for job in done.new:
            self.model.jobs.setdefault(job.id, Job(job, ready_at=first_ready_at(job, now)))
        if enqueued:
            await self.shelves.enqueue(
                Due(job.id, job.queue, job.kind, job.priority, ms(first_ready_at(job, now)))
                for job in done.new
            )

    async def claim(self, worker: Worker, queue: str, kinds: Sequence[str], lease_s: float) -> None:
        claimed = await self.shelves.claim(queue, kinds, 3, lease_s)
        assert len(set(claimed.ids)) == len(claimed.ids) <= 3
        for id_ in claimed.ids:
            job = self.model.jobs[id_].new
            assert job.queue == queue, "claimed from another queue's shelf"
            assert job.kind in kinds, "claimed of a kind that the worker doesn't serve"
        worker.claimed.setdefault(queue, []).extend(claimed.ids)

    async def start(self, worker: Worker, ids: Iterable[JobId], *, answered: bool) -> None:
        """`answered` False: Postgres did it, but the worker never heard."""
        ids = list(dict.fromkeys(ids))
        before_ms = ms(await self.db.session.fetchval("SELECT clock_timestamp()")) - 1
        started = await self.db.jobs.start(ids, worker.name)
        assert not (started and worker.condemned), "a condemned worker started something"
        self._started(worker, started if answered else [])
        for job in started:
            assert job.queue not in self.model.paused, "started from a paused queue"
            self.model.jobs[job.id].start(job)
        rest = [id_ for id_ in ids if id_ not in {job.id for job in started}]
        left = await self.db.jobs.left(rest)
        due = {id_ for id_ in rest if self.model.jobs[id_].place == DUE}
        assert {one.due.id for one in left} == due
        for one in left:
            is_paused = one.due.queue in self.model.paused
            assert one.paused == is_paused
            assert one.expired == self.model.jobs[one.due.id].expired
            held = is_paused or worker.condemned or one.expired
            assert held or one.due.ready_ms >= before_ms, "not started"
        queues = {id_: self.model.jobs[id_].new.queue for id_ in rest}
        await self.shelves.enqueue(
            [one.due for one in left if not one.expired], [Off(queues[id_], id_) for id_ in rest]
        )

    async def race_to_start(self, first: Worker, second: Worker) -> None:
        ids = [i for i, job in self.model.jobs.items() if job.place == DUE][:4]
        answers = await asyncio.gather(
            self.db.jobs.start(ids, first.name), self.db.jobs.start(ids[::-1], second.name)
        )
        for worker, started in zip((first, second), answers, strict=True):
            assert not (started and worker.condemned)
            self._started(worker, started)
            for job in started:
                assert job.queue not in self.model.paused
                self.model.jobs[job.id].start(job)

    async def settle(self, run: Started, ending: Ending, *, told: bool, acked: bool = True) -> None:
        """`told`: the worker has heard of a cancel request, if there is one. Whoever settles an
        attempt that is over settles nothing."""
        job = self.model.jobs[run.id]
        known = ending.outcome is Outcome.CANCELLED or (told and job.cancel_requested)
        runs = job.is_run_by(run)
        wins = known or ending.outcome is Outcome.SUCCEEDED
        held_back = runs and job.cancel_requested and not wins
        key = (run.id, run.attempt)
        settled, held = await self.db.settle_all([_settlement(run, ending, known)])
        assert held == ({key} if held_back else set())
        assert settled.keys() == ({key} if runs and not held_back else set()), "the fence is open"
        if held_back:
            await self.settle(run, ending, told=True, acked=acked)
        elif runs:
            job.settle(ending, cancel_known=known)
            job.due_again(run, ending, settled[key].ready_at)
            if acked:
                await self._ack(job)

    async def race_to_settle(self, run: Started) -> None:
        """Its worker says that it succeeded while a reaper says that it was lost."""
        job, key = self.model.jobs[run.id], (run.id, run.attempt)
        answers = await asyncio.gather(
            *(self.db.settle_all([_settlement(run, ending)]) for ending in (making.SUCCESS, LOST))
        )
        winners = [
            (ending, settled[key])
            for ending, (settled, _) in zip((making.SUCCESS, LOST), answers, strict=True)
            if key in settled
        ]
        assert len(winners) == int(job.is_run_by(run)), "I2: settled twice, or not at all"
        for ending, done in winners:
            job.settle(ending, cancel_known=False)
            job.due_again(run, ending, done.ready_at)

    async def cancel(self, id_: JobId) -> None:
        job = self.model.jobs[id_]
        due = await self.db.jobs.cancel_due(id_)
        assert (due is not None) == (job.place == DUE)
        if due is not None:
            job.end("cancelled")
            return await self.shelves.forget([due])
        worker = await self.db.jobs.cancel_running(id_)
        assert worker == (job.worker if job.place == RUNNING else None)
        if worker is None:
            assert await self.db.places([id_]) == [job.place]
        else:
            job.cancel_requested = True
        return None

    async def retry(self, id_: JobId, *, enqueued: bool) -> None:
        job = self.model.jobs[id_]
        due = await self.db.retry(id_)
        is_free = self.model.holder(job.new) in (None, id_)
        assert (due is not None) == (job.place in ("dead", "cancelled") and is_free)
        if due is not None:
            job.live_again()
            if enqueued:
                await self.shelves.enqueue([due])

    async def outlive(self, id_: JobId) -> None:
        """Its time to live passes, if it has one and was not started in this life."""
        await self.db.session.execute(_OUTLIVE, id_)
        job = self.model.jobs[id_]
        job.expired = job.expired or (job.place == DUE and job.may_expire)

    async def end_expired(self) -> None:
        ended = await self.db.jobs.expire(500)
        expired = {i for i, job in self.model.jobs.items() if job.expired}
        assert {one.id for one in ended} == expired, "not those whose time is over"
        for one in ended:
            self.model.jobs[one.id].end("cancelled")
        await self.shelves.forget(ended)

    async def pause(self, queue: str, *, paused: bool) -> None:
        await self.db.queues.set_paused(queue, paused=paused)
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    async def expire(self, worker: Worker) -> None:
        """Its time to live passes without a beat."""
        await self.db.session.execute(_EXPIRE, worker.name)
        worker.expired = True

    async def crash(self, worker: Worker) -> None:
        """Its memory is gone; another process takes its place."""
        worker.crashed = True
        worker.claimed.clear()
        worker.runs.clear()
        await self.hire()

    async def beat(self, worker: Worker) -> None:
        alive = await self.db.postgres.rows("beat", worker.name, TTL_S)
        assert bool(alive) == (not worker.condemned)
        worker.expired = worker.expired and worker.condemned

    async def reap(self) -> None:
        await self.db.session.execute(_STEADY_PULSE)
        silent = {w.name for w in self.model.workers if w.expired and not w.condemned}
        assert set(await self.db.workers.condemn(TTL_S)) == silent
        for worker in self.model.workers:
            worker.condemned = worker.condemned or worker.name in silent
        dead = {worker.name for worker in self.model.workers if worker.condemned}
        lost = {job.worker for job in self.model.jobs.values() if job.worker in dead}
        names = await self.db.workers.orphaning()
        assert set(names) == lost
        for run, cancel_requested in await self.db.jobs.running_of(names, 500, with_payload=False):
            await self.settle(run, LOST, told=cancel_requested)
        assert not await self.db.workers.orphaning()

    async def adopt(self, worker: Worker) -> None:
        """It looks for what stands under its name and takes in what it doesn't know."""
        known = {(run.id, run.attempt) for run in worker.runs}
        rows = await self.db.jobs.running_of([worker.name], 500, with_payload=True)
        mine = {(i, j.attempt) for i, j in self.model.jobs.items() if j.worker == worker.name}
        assert {(run.id, run.attempt) for run, _ in rows} == mine
        for run, cancel_requested in rows:
            assert cancel_requested == self.model.jobs[run.id].cancel_requested
        self._started(worker, [run for run, _ in rows if (run.id, run.attempt) not in known])

    async def return_expired(self, queue: str) -> None:
        ids = await self.shelves.expired(queue)
        due = await self.db.line.among(ids)
        assert {one.id for one in due} == {i for i in ids if self.model.jobs[i].place == DUE}
        await self.shelves.enqueue(due, [Off(queue, id_) for id_ in ids])

    async def reconcile(self) -> None:
        for queue, kinds in (await Round(self.db.line, 200).next()).items():
            (found,) = await self.shelves.survey([queue], kinds)
            if found.marked:
                await self.shelves.restore(
                    queue, await self.db.line.head(queue, kinds, 1000, AGING_MS)
                )
                continue
            async for page in pages(self.db.line, queue, 2):
                await self.shelves.restore(queue, page)
            await self.shelves.mark(queue)

    async def check(self) -> None:
        """I2, I4, I6, I7: Postgres holds what the model holds, no more and no less."""
        rows = await self.db.session.fetch(_PLACES)
        found = {JobId(row[0]): tuple(row)[1:] for row in rows}
        assert len(found) == len(rows), "I7: a job stands in two places"
        assert found == self.model.places()
        keys = [JobId(row[0]) for row in await self.db.session.fetch(_KEYS)]
        assert sorted(keys) == sorted(self.model.keyed()), "keys are not held by the live alone"
        attempts = {tuple(row) for row in await self.db.session.fetch(_ATTEMPTS)}
        assert attempts == self.model.attempts()
        counts = {row[0]: row[1] for row in await self.db.session.fetch(_COUNTS)}
        assert counts == self.model.ended(), "the counts are not those of the places"

    async def heal_and_drain(self) -> None:
        """All faults end, one worker lives: every job must come to its end."""
        for queue in QUEUES:
            await self.pause(queue, paused=False)
        for worker in self.model.workers:
            await self.expire(worker)
        last = await self.hire()
        await self.reap()
        async with asyncio.timeout(10):
            while any(job.live for job in self.model.jobs.values()):
                await self._round(last)
        await self.check()
        assert not await self.db.session.fetch(_OVERLAPPING), "two attempts at once"

    async def _round(self, worker: Worker) -> None:
        await self.end_expired()
        await self.reconcile()
        for queue in QUEUES:
            await self.return_expired(queue)
            await self.shelves.promote(queue, 1000)
            await self.claim(worker, queue, KINDS, lease_s=0.02)
            await self.start(worker, worker.claimed.pop(queue, []), answered=True)
        for run in [worker.runs.pop() for _ in range(len(worker.runs))]:
            await self.settle(run, making.SUCCESS, told=False)

    async def _ack(self, job: Job) -> None:
        new, due = job.new, []
        if job.ready_at:
            due = [Due(new.id, new.queue, new.kind, new.priority, ms(job.ready_at))]
        await self.shelves.enqueue(due, [Off(new.queue, new.id, ended=not due)])

    def _started(self, worker: Worker, runs: Iterable[Started]) -> None:
        for run in runs:
            worker.runs.append(run)
            self.model.runs.append(run)


def _settlement(run: Started, ending: Ending, cancel_known: bool = False) -> Settlement:
    """With a short pause after a crash, too."""
    made = settlement(run, ending, cancel_known, PATIENCE)
    pause_s = made.verdict.delay_s and min(made.verdict.delay_s, 0.02)
    return replace(made, verdict=replace(made.verdict, delay_s=pause_s))


@asynccontextmanager
async def opened(dsn: str, redis_url: str) -> AsyncIterator[World]:
    async with database.opened(dsn) as db, redis_shelves.opened(redis_url) as shelves:
        yield World(db, shelves)
