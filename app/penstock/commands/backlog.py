"""What has been submitted and waits for its commit: how many jobs, and since when."""

from penstock import clock


class Backlog:
    """`jobs` that wait. Those who are in a queue with others also have a time."""

    def __init__(self) -> None:
        self.jobs = 0
        self._since: dict[object, float] = {}  # in the order in which they came

    def enter(self, who: object, jobs: int, *, is_queued: bool) -> None:
        """`is_queued` False: it has a transaction of its own, which may well be long."""
        self.jobs += jobs
        if is_queued:
            self._since[who] = clock.monotonic()

    def leave(self, who: object, jobs: int) -> None:
        self.jobs -= jobs
        self._since.pop(who, None)

    def waited_s(self) -> float:
        """How long the first of the queue has waited; 0 where there is none."""
        for since in self._since.values():
            return clock.monotonic() - since
        return 0.0
