"""Which effects of rules are told at all: first failures, throttling; and recoveries.

In: an effect of a rule, before it is sent. Out: why it is kept back, or nothing. What was told is
kept in Postgres, by rule, queue and kind, under the effect's id: asked again about the same one, as
after a crash, the answer is the same. A recovery is looked for while something fails, so that
successes cost nothing.
"""

from collections.abc import Iterable

from penstock.domain.effect import RECOVERED, Delivery, Effect, Fate, On, Rule, of_recovery
from penstock.domain.job import State
from penstock.domain.view import JobView
from penstock.store.rule_marks import Failing, RuleMarks
from penstock.telemetry.logs import get_logger

_LOOK_S = 2.0
_UNKNOWN_TRIES = 2  # another replica may know the rule: they are started one after the other
_UNKNOWN_S = 60.0

log = get_logger(__name__)

_UNKNOWN = Delivery(Fate.LATER, "no rule of that name is configured here", _UNKNOWN_S)
_UNKNOWN_FOR_GOOD = Delivery(Fate.DROPPED, "its rule is no longer configured")
_NOT_THE_FIRST = Delivery(Fate.DROPPED, "not the first failure since a success")
_ONLY_RECOVERY = Delivery(Fate.DROPPED, "the rule tells of the recovery only")


class Sieve:
    def __init__(self, rules: Iterable[Rule], marks: RuleMarks) -> None:
        self._marks = marks
        self.use(rules)

    def use(self, rules: Iterable[Rule]) -> None:
        """These count from now on."""
        self._rules = {rule.name: rule for rule in rules}

    async def judge(self, effect: Effect, job: JobView) -> Delivery | None:
        """None: it is to be sent."""
        if effect.rule is None or effect.event == RECOVERED:
            return None
        rule = self._rules.get(effect.rule)
        if rule is None:
            return _UNKNOWN if effect.tries <= _UNKNOWN_TRIES else _UNKNOWN_FOR_GOOD
        if effect.state == State.DEAD and rule.looks_back:
            kept_back = await self._looked_back(rule, effect, job)
            if kept_back is not None:
                return kept_back
        if rule.throttle_s and not await self._marks.may_tell(rule, job.queue, job.kind, effect):
            why = f"the rule told of another one within {rule.throttle_s:g} s"
            return Delivery(Fate.DROPPED, why)
        return None

    async def look_for_recoveries(self) -> float:
        """Tells of successes after deaths, and lets the next death be a first one again."""
        looking = [rule.name for rule in self._rules.values() if rule.looks_back]
        for failing in await self._marks.failing(looking) if looking else []:
            await self._look_for_recovery(failing, self._rules[failing.rule])
        return _LOOK_S

    async def _looked_back(self, rule: Rule, effect: Effect, job: JobView) -> Delivery | None:
        first = await self._marks.is_first_failure(rule.name, job.queue, job.kind, effect)
        if On.DEAD in rule.wish.on or (first and On.FIRST_FAILURE in rule.wish.on):
            return None
        return _NOT_THE_FIRST if On.FIRST_FAILURE in rule.wish.on else _ONLY_RECOVERY

    async def _look_for_recovery(self, failing: Failing, rule: Rule) -> None:
        job = await self._marks.success_after(failing, rule.tags)
        if job is None:
            return
        told = [of_recovery(job, rule)] if On.RECOVERY in rule.wish.on else []
        if await self._marks.recover(failing, told):
            log.info("recovered", rule=rule.name, queue=failing.queue, kind=failing.kind)
