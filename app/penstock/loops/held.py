"""What this replica holds: every attempt from its start until it is settled."""

from penstock.domain.attempt import Ending, Outcome
from penstock.domain.ids import JobId
from penstock.loops.pool import Run
from penstock.loops.settle import Outgoing


class Held:
    """By job id. `departed`, while somebody has set it, collects the ids that leave."""

    def __init__(self) -> None:
        self.runs: dict[JobId, Run] = {}
        self.starting: set[JobId] = set()  # sent to start, not answered yet
        self.nesting: set[JobId] = set()  # on their way to be workflows
        self.departed: set[JobId] | None = None

    def __contains__(self, id_: JobId) -> bool:
        return id_ in self.runs or id_ in self.starting or id_ in self.nesting

    def ids(self) -> set[JobId]:
        """All that is here."""
        return {*self.runs, *self.starting, *self.nesting}

    def add(self, run: Run) -> None:
        self.runs[run.job.id] = run

    def leaving(self, run: Run, ending: Ending) -> Outgoing:
        """A run that has ended, on its way: with all that its handler told, and what it submitted
        if it succeeded. It is held until it is settled."""
        submitted = run.context.take_submitted()
        return Outgoing(
            run.context.job,  # what it submitted is of its own span's trace
            ending,
            run.log_rows(),
            run.progress_row(),
            children=submitted if ending.outcome is Outcome.SUCCEEDED else (),
            done=lambda: self.drop(run),
            ran_s=run.ran_s(),
        )

    def drop(self, run: Run) -> None:
        if self.runs.get(run.job.id) is run:
            del self.runs[run.job.id]
        if self.departed is not None:
            self.departed.add(run.job.id)

    def by_queue(self) -> dict[str, list[JobId]]:
        found: dict[str, list[JobId]] = {}
        for id_, run in self.runs.items():
            found.setdefault(run.job.queue, []).append(id_)
        return found
