"""The retries of this replica, kind by kind: who is over the budget of `domain/retry_budget` waits.

In: verdicts. Out: the same, or with a later time, which the settlement stores: the job shows it.
Nothing of this outlives the process; a replica that starts anew begins with a full budget.
"""

import random
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

    def paced(self, kind: str, verdict: Verdict) -> Verdict:
        """The verdict on one attempt, later where too many of its kind are to be tried again.

        What was lost or handed back keeps its place: it has waited its turn already.
        """
        now = clock.monotonic()
        budget = self._budget(kind, now)
        budget.count(1, now)
        if verdict.state is not None or verdict.delay_s is None:
            return verdict
        moves_s = budget.moves_s(now, random.random())
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
