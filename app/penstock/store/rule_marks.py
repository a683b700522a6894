"""What notification rules told of, by queue and kind: first failures, recoveries, throttling.

Always holds: of two relays that ask at once about two effects, one is told that its own is the
first; who asks again about the same one gets the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.domain.effect import Effect, EndedJob, NewEffect, Rule
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.store.effects import add_effects
from penstock.store.postgres import Postgres

_FAILING_MAX = 100  # looked at in one step


@dataclass(frozen=True, slots=True)
class Failing:
    """Jobs of a queue and kind have died since then, and none has succeeded, as far as is known."""

    rule: str
    queue: str
    kind: str
    since: datetime


class RuleMarks:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def is_first_failure(self, rule: str, queue: str, kind: str, effect: Effect) -> bool:
        """Whether it is the first death since a success."""
        asked = (rule, queue, kind, effect.at, effect.id, effect.tries > 1 or effect.lapsed)
        first = await self._pg.value("mark_failure", *asked)
        return first is None or bool(first)

    async def may_tell(self, rule: Rule, queue: str, kind: str, effect: Effect) -> bool:
        """Whether the rule has told of no other one lately."""
        asked = (rule.name, queue, kind, effect.id, rule.throttle_s)
        return bool(await self._pg.value("mark_told", *asked))

    async def failing(self, rules: Sequence[str]) -> list[Failing]:
        found = await self._pg.rows("failing_marks", list(rules), _FAILING_MAX)
        return [Failing(*row) for row in found]

    async def success_after(self, failing: Failing, tags: Sequence[str]) -> EndedJob | None:
        """A job that succeeded since."""
        asked = (failing.queue, failing.kind, failing.since, list(tags))
        found = await self._pg.rows("success_after", *asked)
        if not found:
            return None
        id_, attempt = found[0]
        return EndedJob(JobId(id_), attempt, failing.queue, failing.kind, State.SUCCEEDED)

    async def recover(self, failing: Failing, told: Sequence[NewEffect]) -> bool:
        """It fails no more; whether we are the first to say so, and write `told`."""
        async with self._pg.transaction() as transaction:
            asked = (failing.rule, failing.queue, failing.kind, failing.since)
            if not await transaction.rows("end_failure", *asked):
                return False
            await add_effects(transaction, told)
            return True
