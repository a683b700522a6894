"""Faults written into the copy, where a fault from outside would reach a line too seldom. None is a
bug: with them alone every rule holds.
"""

from tests.chaos.mutants.patches import Patch

# Where they go in: at the beginning of a method, and when its answer is there.
_START = """ what is due to running under this worker's name, in the order of `ids`.\"""
"""
_SETTLE = """        \"""Consumes the running rows of jobs that are part of no graph.\"""
"""
_SETTLED = """\
        found = await self._pg.rows("settle_attempts", *columns, point="after_settle")
"""
_STORE = """        if len(jobs) <= ROWS_MAX:
            await chaos.point("before_commit")
"""
_STORED = """            at: datetime = found[0][0]
"""

# A third of the settlements are committed, and their answer never comes.
SETTLE_ANSWERS_LOST = Patch(
    "store/jobs.py",
    _SETTLED,
    _SETTLED
    + """        import random
        if random.random() < 0.33:
            from penstock.domain.errors import StoreUnavailable
            raise StoreUnavailable("provoked", unknown=True)
""",
)
# The same, found out only after three seconds, as on a link that is dead.
SETTLE_ANSWERS_LOST_LATE = Patch(
    "store/jobs.py",
    _SETTLED,
    _SETTLED
    + """        import asyncio, random
        if random.random() < 0.33:
            from penstock.domain.errors import StoreUnavailable
            await asyncio.sleep(3)
            raise StoreUnavailable("provoked", unknown=True)
""",
)
SUBMIT_ANSWERS_LOST = Patch(
    "store/submissions.py",
    _STORED,
    _STORED
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
    _START,
    _START
    + """        import asyncio
        await asyncio.sleep(1)
""",
)
# Settlements of two or more are refused if one of them is of such a job.
ROW_REFUSED = Patch(
    "store/jobs.py",
    _SETTLE,
    _SETTLE
    + """        if len(batch) > 1 and any(s.job.id[-1] % 8 == 0 for s in batch):
            from penstock.domain.errors import BadRow
            raise BadRow("provoked")
""",
)
# Neither the message nor the beat tells a worker that it should stop an attempt.
STOPS_UNHEARD = [
    Patch("loops/registrar.py", "for id_ in beat.cancel:", "for id_ in ():"),
    Patch(
        "commands/change.py",
        """        self._sequel.on_cancel(id_)
        self._sequel.on_unfinished()  # it may be a workflow, which the spreader stops
        await self._enqueuer.tell(keys.CANCEL, id_)
""",
        "        return\n",
    ),
]
# The host's clock stands 20 s behind; Postgres' doesn't.
CLOCK_BEHIND = Patch("clock.py", "    return time.time()\n", "    return time.time() - 20\n")
