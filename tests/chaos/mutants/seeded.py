"""The seeded bugs. Each is what somebody could write by mistake, or once did elsewhere."""

from tests.chaos.mutants import provoked, scenes
from tests.chaos.mutants.patches import Patch
from tests.chaos.mutants.seeded_graphs import GRAPHS
from tests.chaos.mutants.trial import Mutant

_SQL, _WORKERS = "store/sql/engine.sql", "store/sql/workers.sql"

_NO_HEAD_CHECK = Patch(
    "loops/reconciler.py",
    "missing = await self._parts.shelves.restore(queue, head)\n        await self._tell",
    "missing = 0\n        await self._tell",
)
_PROMOTED_EARLY = Patch(
    "queue/lua/promote.lua",
    "'-inf', string.format('%.0f', now), 'WITHSCORES'",
    "'-inf', '+inf', 'WITHSCORES'",
)
_STARTED_EARLY = Patch(
    _SQL,
    """(SELECT now FROM t) - ready_at >= interval '0' -- "<=" would""",
    "true -- would",
)

FENCE = [
    Mutant(
        "settle goes by job and worker, not by attempt",
        scenes.failing,
        "I6 an outcome is that of its own attempt",
        [
            Patch(
                _SQL,
                "USING (job_id, attempt, worker_id) CROSS JOIN t",
                "USING (job_id, worker_id) CROSS JOIN t",
            )
        ],
        [provoked.SETTLE_ANSWERS_LOST_LATE],
    ),
    Mutant(
        "settle goes by job and attempt, not by worker",
        scenes.failing,
        "I6 an outcome is that of its own attempt",
        [
            Patch(
                _SQL,
                "USING (job_id, attempt, worker_id) CROSS JOIN t",
                "USING (job_id, attempt) CROSS JOIN t",
            )
        ],
        [provoked.SETTLE_ANSWERS_LOST_LATE],
        "attempts that are never numbered twice",
        [Patch(_SQL, "USING (job_id, attempt) CROSS JOIN t", "USING (job_id) CROSS JOIN t")],
    ),
    Mutant(
        "settle leaves the running row",
        scenes.calm,
        "I2 a job moves only from place to place",
        [
            Patch(
                _SQL,
                "gone AS (DELETE FROM job_running WHERE job_id = ANY(ARRAY(SELECT job_id FROM m)))",
                "gone AS (SELECT job_id FROM m)",
            )
        ],
    ),
    Mutant(
        "settlements that were made are forgotten when their answer is lost",
        scenes.failing_in_time,
        "I9 what is due starts soon",
        [Patch("loops/settle.py", "                if unknown:\n", "                if False:\n")],
        [provoked.SETTLE_ANSWERS_LOST],
    ),
    Mutant(
        "start doesn't take the row out of the line",
        scenes.calm,
        "I2 a job moves only from place to place",
        [
            Patch(
                _SQL,
                """DELETE FROM job_due WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
    RETURNING job_id, queue, kind, priority, ready_at, attempt + 1""",
                """UPDATE job_due SET kind = kind WHERE job_id = ANY(ARRAY(SELECT job_id FROM k))
    RETURNING job_id, queue, kind, priority, ready_at, attempt + 1""",
            )
        ],
    ),
    Mutant(
        "a second attempt has the number of the first",
        scenes.calm,
        "I4 an attempt begins once",
        [Patch(_SQL, "attempt + 1 AS attempt", "greatest(attempt, 1) AS attempt")],
    ),
    Mutant(
        "start doesn't look whether its worker is condemned",
        scenes.stopped,
        "I6 nothing begins under a condemned name",
        [
            Patch(
                _SQL,
                """
      AND EXISTS (SELECT 1 FROM workers WHERE worker_id = $2 AND condemned_at IS NULL)""",
                "",
            )
        ],
        [provoked.STARTS_SLOW],
    ),
    Mutant(
        "a refused row takes half of its batch with it",
        scenes.crowded,
        "I4 the log has each attempt at most once",
        [
            Patch(
                "loops/settle.py",
                """        await self._settle(batch[:half])
        await self._settle(batch[half:])
""",
                "        await self._settle(batch[:half])\n",
            )
        ],
        [provoked.ROW_REFUSED],
    ),
]

REAPER = [
    Mutant(
        "the reaper doesn't count what was lost",
        scenes.kills,
        "I4 an attempt costs what its outcome costs",
        [Patch("domain/verdict.py", "losses = job.losses + 1", "losses = job.losses")],
    ),
    Mutant(
        "the reaper condemns without a pulse",
        scenes.postgres_paused,
        "I6b nothing is lost while its worker lives",
        [
            Patch(
                _WORKERS,
                """
  AND t.now - p.last_beat < make_interval(secs => $1::float8 / 2)
  AND t.now - p.unbroken_since >= make_interval(secs => $1)
""",
                "\n  AND $1::float8 > 0\n",
            )
        ],
    ),
    Mutant(
        "the reaper goes by expiry, not by who is condemned",
        scenes.postgres_paused,
        "I6b nothing is lost while its worker lives",
        [
            Patch(
                _WORKERS,
                "WHERE l.worker_id = w.worker_id AND l.condemned_at IS NULL\n",
                "WHERE l.worker_id = w.worker_id AND l.expires_at > clock_timestamp()\n",
            )
        ],
    ),
    Mutant(
        "a beat goes by the worker's own clock",
        scenes.calm,
        "I6b nothing is lost while its worker lives",
        [
            Patch(
                _WORKERS,
                "SET beat_at = t.now, expires_at = t.now + make_interval(secs => $2)\n",
                "SET beat_at = t.now, expires_at = to_timestamp($3) + make_interval(secs => $2)\n",
            ),
            Patch(
                "store/workers.py",
                'self._sql["beat"], worker, ttl_s)',
                'self._sql["beat"], worker, ttl_s, clock.wall_s())',
            ),
        ],
        [provoked.CLOCK_BEHIND],
    ),
    Mutant(
        "nobody looks for what dead workers ran",
        scenes.kills,
        "I1 nothing is due or running",
        [Patch("loops/reaper.py", "        if not names:\n", "        if True:\n")],
    ),
]

LINE = [
    Mutant(
        "what is committed isn't put in line",
        scenes.calm,
        "I9 what is due starts soon",
        [Patch("commands/submit.py", "        self._enqueue(jobs, committed_at)\n", "")],
    ),
    Mutant(
        "what is committed isn't put in line, and nobody looks for it",
        scenes.calm,
        "I1 nothing is due or running",
        [Patch("commands/submit.py", "        self._enqueue(jobs, committed_at)\n", "")],
        unguarded=[_NO_HEAD_CHECK],
    ),
    Mutant(
        "a lease is never taken off",
        scenes.calm,
        "I8 what stands on a shelf is live",
        [
            Patch(
                "loops/settle.py",
                "off.append(Off(job.queue, job.id, ended=done.ready_at is None))",
                "pass",
            )
        ],
        guard="the ends of leases",
        unguarded=[
            Patch(
                "loops/renewer.py",
                "self._parts.enqueuer.put(due, [Off(queue, id_) for id_ in ids])",
                "self._parts.enqueuer.put(due)",
            )
        ],
    ),
    Mutant(
        "a claim leases nothing",
        scenes.one_killed,
        "I1 nothing is due or running",
        [
            Patch(
                "queue/lua/claim.lua",
                "    redis.call('ZADD', KEYS[1], unpack(members))\n",
                "",
            )
        ],
        [provoked.STARTS_SLOW],
        "the reconciler's head check",
        [_NO_HEAD_CHECK],
    ),
    Mutant(
        "jobs are promoted before their time",
        scenes.calm_but_late,
        "I9 nothing starts before its time",
        [_PROMOTED_EARLY],
        guard="start, which looks at the time",
        unguarded=[_STARTED_EARLY],
    ),
    Mutant(
        "start doesn't look at the time",
        scenes.calm,
        "I9 nothing starts before its time",
        [_STARTED_EARLY],
        guard="the scheduled shelf",
        unguarded=[_PROMOTED_EARLY],
    ),
    Mutant(
        "start doesn't look whether the queue is paused",
        scenes.paused,
        "nothing starts in a paused queue",
        [
            Patch(
                _SQL,
                """
      AND queue <> ALL (ARRAY(SELECT queue FROM queues WHERE paused))
      AND EXISTS""",
                "\n      AND EXISTS",
            )
        ],
        guard="the claims' own copy of the queues",
        unguarded=[
            Patch(
                "loops/claims.py",
                "            if not self._parts.book.paused(queue):\n",
                "            if True:\n",
            )
        ],
    ),
    Mutant(
        "start doesn't look at the expiry",
        scenes.expiring,
        "I9 nothing starts for the first time after its expiry",
        [
            Patch(
                _SQL,
                "      AND (expires_at IS NULL OR expires_at > (SELECT now FROM t))\n",
                "",
            )
        ],
    ),
    Mutant(
        "a job that has been started can expire",
        scenes.expiring,
        "I9 only what has not been started expires",
        [
            Patch(
                _SQL,
                """    SELECT job_id FROM job_due
    WHERE expires_at <= (SELECT now FROM t) AND graph_id IS NULL
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
""",
                """    SELECT d.job_id FROM job_due d JOIN jobs j USING (job_id)
    WHERE j.expires_at <= (SELECT now FROM t) LIMIT $1 FOR UPDATE OF d SKIP LOCKED
""",
            )
        ],
    ),
]

DOOR = [
    Mutant(
        "callers are answered before the commit",
        scenes.callers_lost,
        "I1 what was accepted is there",
        [
            Patch(
                "commands/submit.py",
                """            committed_at = await self._submissions.store(jobs, entries)
            for one in batch:
                _tell(one, Accepted(committed_at, [job.id for job in one.submission.jobs]))
""",
                """            from datetime import UTC
            for one in batch:
                _tell(one, Accepted(datetime.now(UTC), [job.id for job in one.submission.jobs]))
            committed_at = await self._submissions.store(jobs, entries)
""",
            )
        ],
        [provoked.SUBMISSIONS_SLOW],
    ),
    Mutant(
        "a batch that is sent again has new ids",
        scenes.calm_but_late,
        "I1b every job was submitted",
        [
            Patch(
                "commands/submit.py",
                "            jobs = [job for one in batch for job in one.submission.jobs]\n",
                """            import os
            from dataclasses import replace
            jobs = [
                replace(job, id=os.urandom(16)) if one.again else job
                for one in batch for job in one.submission.jobs
            ]
""",
            )
        ],
        [provoked.SUBMIT_ANSWERS_LOST],
    ),
    Mutant(
        "an Idempotency-Key is not looked up",
        scenes.keyed,
        "I11 a key has one answer",
        [
            Patch(
                _SQL,
                "  AND stored_at + make_interval(secs => $2) > clock_timestamp();",
                "  AND stored_at + make_interval(secs => $2) < clock_timestamp();",
            )
        ],
    ),
    Mutant(
        "a unique key is kept when its job ends",
        scenes.keyed,
        "I7 a unique key is held by a live job",
        [
            Patch(
                _SQL,
                "SELECT unique_id FROM m WHERE state IS NOT NULL AND unique_id IS NOT NULL",
                "SELECT unique_id FROM m WHERE false",
            )
        ],
    ),
    Mutant(
        "a unique key is let go of when its job is due again",
        scenes.keyed,
        "no two live jobs have one unique key",
        [
            Patch(
                _SQL,
                "SELECT unique_id FROM m WHERE state IS NOT NULL AND unique_id IS NOT NULL",
                "SELECT unique_id FROM m WHERE unique_id IS NOT NULL",
            )
        ],
    ),
    Mutant(
        "settle doesn't see that a cancel was requested",
        scenes.cancelled,
        "I6 what was asked to stop doesn't go on",
        [
            Patch(
                _SQL,
                "    AND (NOT k.cancel_requested OR v.cancel_known OR v.state = 'succeeded')\n",
                "",
            )
        ],
        provoked.STOPS_UNHEARD,
    ),
    Mutant(
        "a cancel isn't counted",
        scenes.cancelled,
        "the counts are those of the places",
        [
            Patch(
                _SQL,
                "SELECT queue, 'cancelled', clock_timestamp(), 1 FROM d\n",
                "SELECT queue, 'cancelled', clock_timestamp(), 1 FROM d WHERE false\n",
            )
        ],
    ),
    Mutant(
        "what succeeded can be retried",
        scenes.cancelled,
        "I2 a new life is for what didn't succeed",
        [
            Patch(
                _SQL,
                "WHERE job_id = $1 AND state <> 'succeeded' FOR UPDATE",
                "WHERE job_id = $1 FOR UPDATE",
            )
        ],
    ),
    Mutant(
        "a new life begins with the old one's failures",
        scenes.cancelled,
        "I2 a new life is for what didn't succeed, and is fresh",
        [
            Patch(
                _SQL,
                "e.attempt, 0, 0,\n           j.unique_id, j.expires_at",
                "e.attempt, 1, 0,\n           j.unique_id, j.expires_at",
            )
        ],
    ),
    Mutant(
        "a budget is one failure larger than it says",
        scenes.calm,
        "I4 failures stay within the budget",
        [
            Patch(
                "domain/verdict.py",
                "if failures >= job.max_attempts:",
                "if failures > job.max_attempts:",
            )
        ],
    ),
]

REPLICA = [
    Mutant(
        "a drain doesn't hand back what is late",
        scenes.terminated,
        "I15 a drain hands back what it had",
        [
            Patch(
                "loops/drain.py",
                "            self.hands.pool.stop(run, Outcome.RELEASED)\n",
                "            pass\n",
            )
        ],
        guard="the drain's look for its name in Postgres",
        unguarded=[
            Patch(
                "loops/drain.py",
                "while rows := await self.jobs.running_of(",
                "while rows := [] and await self.jobs.running_of(",
            )
        ],
    ),
    Mutant(
        "a drain goes on claiming",
        scenes.terminated,
        "I15 nothing starts in a drain",
        [Patch("loops/drain.py", "        self.me.draining = True\n", "")],
    ),
    Mutant(
        "what was handed back is charged as a loss",
        scenes.terminated,
        "I4 an attempt costs what its outcome costs",
        [
            Patch(
                "domain/verdict.py",
                "        case Outcome.RELEASED:\n",
                """        case Outcome.RELEASED:
            import dataclasses
            job = dataclasses.replace(job, losses=job.losses + 1)
""",
            )
        ],
    ),
    Mutant(
        "the secret that signs tokens is logged",
        scenes.calm,
        "I18 secrets are told to nobody",
        [
            Patch(
                "server.py",
                'log.info("serving", url=replica.url,',
                'log.info("serving", key=settings.auth.jwt_secret.get_secret_value(), url="",',
            )
        ],
    ),
    Mutant(
        "each settlement leaves a file open",
        scenes.calm,
        "I17 each sample is below its cap",
        [
            Patch(
                "loops/settle.py",
                "        self._flushing.add(began)\n",
                """        self._flushing.add(began)
        self.__dict__.setdefault("left", []).extend(open("/dev/null") for _ in range(5))
""",
            )
        ],
    ),
]

MUTANTS = [*FENCE, *REAPER, *LINE, *DOOR, *REPLICA, *GRAPHS]
