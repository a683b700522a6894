"""Faults written into the copy, where a fault from outside would reach a line too seldom. None is a
bug: with them alone every rule holds.
"""

from tests.chaos.mutants.patches import Patch

_SETTLE = """        found = await self._pg.rows("settle_attempts", *_columns(batch))
"""
_STORE = """        if len(jobs) <= ROWS_MAX:
            found = await self._pg.rows("submit_jobs", *rows.submission(jobs))
            at: datetime = found[0][0]
"""

# A third of the settlements are committed, and their answer never comes.
SETTLE_ANSWERS_LOST = Patch(
    "store/jobs.py",
    _SETTLE,
    _SETTLE
    + """        from random import random as __random
        if __random() < 0.33:
            from penstock.domain.errors import StoreUnavailable
            raise StoreUnavailable("provoked", unknown=True)
""",
)
# The same, found out only after three seconds, as on a link that is dead.
SETTLE_ANSWERS_LOST_LATE = Patch(
    "store/jobs.py",
    _SETTLE,
    _SETTLE
    + """        import asyncio, random
        if random.random() < 0.33:
            from penstock.domain.errors import StoreUnavailable
            await asyncio.sleep(3)
            raise StoreUnavailable("provoked", unknown=True)
""",
)
SUBMIT_ANSWERS_LOST = Patch(
    "store/submissions.py",
    _STORE,
    _STORE
    + """            import random
            if random.random() < 0.2:
                from penstock.domain.errors import StoreUnavailable
                raise StoreUnavailable("provoked", unknown=True)
""",
)
SUBMISSIONS_SLOW = Patch(
    "store/submissions.py",
    _STORE,
    """        import asyncio
        await asyncio.sleep(0.2)
"""
    + _STORE,
)
STARTS_SLOW = Patch(
    "store/jobs.py",
    """        found = await self._pg.rows("start_jobs", ids, worker)
""",
    """        import asyncio
        await asyncio.sleep(1)
        found = await self._pg.rows("start_jobs", ids, worker)
""",
)
# Settlements of two or more are refused if one of them is of such a job.
ROW_REFUSED = Patch(
    "store/jobs.py",
    _SETTLE,
    """        if len(batch) > 1 and any(s.job.id[-1] % 8 == 0 for s in batch):
            from penstock.domain.errors import BadRow
            raise BadRow("provoked")
"""
    + _SETTLE,
)
# Neither the message nor the beat tells a worker that it should stop an attempt.
STOPS_UNHEARD = [
    Patch("loops/registrar.py", "for id_ in beat.cancel:", "for id_ in ():"),
    Patch(
        "commands/change.py",
        """        self.on_cancel(id_)
        await self._enqueuer.tell(keys.CANCEL, id_)
""",
        "        return\n",
    ),
]
# The host's clock stands a minute behind; Postgres' doesn't.
CLOCK_BEHIND = Patch("clock.py", "    return time.time()\n", "    return time.time() - 20\n")
