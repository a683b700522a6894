"""What becomes of an attempt that ended here: the pure verdict, then the budget of retries."""

import random
from collections.abc import Iterable

from penstock.domain.attempt import Ending
from penstock.domain.job import Started
from penstock.domain.terms import Current
from penstock.domain.verdict import Patience, Verdict, decide
from penstock.loops.retries import Retries


class Judge:
    """`patience` may be exchanged at any time."""

    def __init__(self, patience: Patience, retries: Retries, current: Current) -> None:
        self.patience = patience
        self.retries = retries
        self._current = current

    def count(self, kinds: Iterable[str]) -> None:
        """Verdicts on attempts of these kinds are to come: all of a batch at once, which costs
        next to nothing."""
        self.retries.count(kinds)

    def verdict(self, job: Started, ending: Ending, *, cancel_requested: bool) -> Verdict:
        found = decide(
            self._current.followed(job),  # it may have begun under an older configuration
            ending,
            chance=random.random(),
            cancel_requested=cancel_requested,
            patience=self.patience,
        )
        return self.retries.paced(job.kind, found)
