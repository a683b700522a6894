"""Jobs and their attempts as they were at an end that is told of.

In: which end of which job. Out: what readers would have seen then, though it was replayed since.
None of it is there any more once the job is pruned.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.terms import Current
from penstock.domain.view import AttemptView, JobView
from penstock.store.postgres import Postgres
from penstock.store.reads import job_view

ATTEMPTS_MAX = 100  # of a job, the last ones


@dataclass(frozen=True, slots=True)
class End:
    """Attempt `attempt` ended a job in `state`; 0: it was never started."""

    job: JobId
    attempt: int
    state: State


@dataclass(frozen=True, slots=True)
class EndView:
    """`is_cut`: the payload or the result was too large, and is left out."""

    job: JobView
    is_cut: bool


class Ends:
    def __init__(self, postgres: Postgres, current: Current | None = None) -> None:
        self._pg = postgres
        self._current = current or Current()

    async def jobs(self, ends: Sequence[End], part_max: int) -> dict[End, EndView]:
        """Those that are still there; payloads and results of `part_max` characters at most."""
        ids, attempts = [one.job for one in ends], [one.attempt for one in ends]
        states = [one.state for one in ends]
        found = await self._pg.read("jobs_at_their_ends", ids, attempts, states, part_max)
        return {
            End(JobId(row["job_id"]), row["attempt"], State(row["state"])): EndView(
                self._current.followed(job_view(row)), row["is_cut"]
            )
            for row in found
        }

    async def attempts(self, ends: Sequence[End]) -> dict[tuple[JobId, int], list[AttemptView]]:
        """By job and number of the last attempt: that one and those before it, oldest first."""
        ids, numbers = [one.job for one in ends], [one.attempt for one in ends]
        found: dict[tuple[JobId, int], list[AttemptView]] = defaultdict(list)
        for row in await self._pg.read("attempts_until", ids, numbers, ATTEMPTS_MAX):
            found[JobId(row[0]), row[1]].append(AttemptView(*row[2:]))
        return found
