"""What becomes of an attempt that ended here: the pure verdict, then the budget of retries."""

import random
from collections.abc import Iterable

from penstock.domain.attempt import Ending
from penstock.domain.job import Started
from penstock.domain.verdict import Patience, Verdict, decide
from penstock.loops.retries import Retries


class Judge:
    def __init__(self, patience: Patience, retries: Retries) -> None:
        self._patience = patience
        self._retries = retries

    def count(self, kinds: Iterable[str]) -> None:
        """Verdicts on attempts of these kinds are to come: all of a batch at once, which costs
        next to nothing."""
        self._retries.count(kinds)

    def verdict(self, job: Started, ending: Ending, *, cancel_requested: bool) -> Verdict:
        found = decide(
            job,
            ending,
            chance=random.random(),
            cancel_requested=cancel_requested,
            patience=self._patience,
        )
        return self._retries.paced(job.kind, found)
