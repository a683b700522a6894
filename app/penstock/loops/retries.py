"""The retries of this replica, kind by kind: who is over the budget of `domain/retry_budget` waits.

In: verdicts. Out: the same, or with a later time, which the settlement stores: the job shows it.
Nothing of this outlives the process; a replica that starts anew begins with a full budget.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from penstock import clock
from penstock.domain.retry_budget import BudgetRules, RetryBudget
from penstock.domain.verdict import Verdict
from penstock.telemetry.metrics import Metrics

_KINDS_MAX = 1000  # that have a budget of their own; the rest share one
_REST = ""


class Retries:
    def __init__(self, rules: BudgetRules, metrics: Metrics) -> None:
        self._rules = rules
        self._metrics = metrics
        self._budgets: dict[str, RetryBudget] = {}

    def use(self, rules: BudgetRules) -> None:
        """These count from now on; where they are others, each kind begins with a full budget."""
        if rules != self._rules:
            self._rules, self._budgets = rules, {}

    def count(self, kinds: Iterable[str]) -> None:
        """Attempts of these kinds have ended, one for each time that a kind is named."""
        now = clock.monotonic()
        for kind, count in Counter(kinds).items():
            self._budget(kind, now).count(count, now)

    def paced(self, kind: str, verdict: Verdict) -> Verdict:
        """The verdict on one attempt, later where too many of its kind are to be tried again.

        What was lost or handed back keeps its place: it has waited its turn already.
        """
        if verdict.state is not None or verdict.delay_s is None:
            return verdict
        now = clock.monotonic()
        moves_s = self._budget(kind, now).moves_s(now, random.random())
        if not moves_s:
            return verdict
        self._metrics.retries_delayed(kind).inc()
        return replace(verdict, delay_s=verdict.delay_s + moves_s)

    def _budget(self, kind: str, now: float) -> RetryBudget:
        budget = self._budgets.get(kind)
        if budget is None:
            kind = kind if len(self._budgets) < _KINDS_MAX else _REST
            budget = self._budgets.setdefault(kind, RetryBudget(self._rules, now))
        return budget
