"""Which effects of rules are told, and when: first failures, quiet hours, throttling, groups; and
recoveries.

In: an effect of a rule, before it is sent. Out: why it is kept back, or nothing. Asked is in
this order: whether it is to be told of at all; whether it is quiet now; whether the throttle lets
it pass; whether it is one of a group. What an operator sends again is asked nothing.

What was told is kept in Postgres, by rule, queue and kind, under the effect's id: asked again about
the same one, as after a crash, the answer is the same. A recovery is looked for
while something fails, so that successes cost nothing.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from penstock import clock
from penstock.domain.effect import (
    RECOVERED,
    Delivery,
    Effect,
    Fate,
    On,
    Rule,
    WaitsFor,
    of_recovery,
)
from penstock.domain.job import State
from penstock.domain.quiet import quiet_until
from penstock.domain.view import JobView
from penstock.store.rule_marks import Failing, RuleMarks
from penstock.telemetry.logs import get_logger

_LOOK_S = 2.0
_UNKNOWN_TRIES = 6  # another replica may know the rule: they are started one after the other
_UNKNOWN_S = 60.0

log = get_logger(__name__)

JOINS = Delivery(Fate.GROUPED)

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
        self.used_since = clock.monotonic()

    def quiet_ends(self, now: datetime) -> list[tuple[Rule, datetime]]:
        """When each rule's messages are held no longer: now, where it isn't quiet."""
        return [(rule, quiet_until(rule.quiet, now) or now) for rule in self._rules.values()]

    def rule(self, name: str) -> Rule | None:
        return self._rules.get(name)

    async def judge(self, effect: Effect, job: JobView) -> Delivery | None:
        """None: it is to be sent. `JOINS`: with others of its group."""
        rule = self._rules.get(effect.rule or "")
        if rule is None or effect.waits_for is WaitsFor.ASKED:
            return self.hold(effect)
        if not await self._is_wanted(rule, effect, job):
            return _NOT_THE_FIRST if On.FIRST_FAILURE in rule.wish.on else _ONLY_RECOVERY
        if (held := self.hold(effect)) is not None:
            return held
        if not await self._may_pass(rule, effect, job):
            why = f"the rule told of another one within {rule.throttle_s:g} s"
            return Delivery(Fate.DROPPED, why)
        return JOINS if rule.group and not effect.has_failed else None

    def hold(self, effect: Effect) -> Delivery | None:
        """None: its rule is known, and it isn't quiet, or nobody asks for either."""
        rule = self._rules.get(effect.rule or "")
        if effect.rule is None or (rule is None and effect.event == RECOVERED):
            return None
        if rule is None:
            return _UNKNOWN if effect.tries <= _UNKNOWN_TRIES else _UNKNOWN_FOR_GOOD
        if not rule.quiet or effect.waits_for is WaitsFor.ASKED:
            return None
        until = quiet_until(rule.quiet, effect.now)
        if until is None:
            return None
        if effect.gathers and rule.group is not None:
            until += timedelta(seconds=rule.group.wait_s)  # for those that are held themselves
        return Delivery(Fate.HELD, until=until)

    async def look_for_recoveries(self) -> float:
        """Tells of successes after deaths, and lets the next death be a first one again."""
        looking = [rule.name for rule in self._rules.values() if rule.looks_back]
        for failing in await self._marks.failing(looking) if looking else []:
            await self._look_for_recovery(failing, self._rules[failing.rule])
        return _LOOK_S

    async def _is_wanted(self, rule: Rule, effect: Effect, job: JobView) -> bool:
        """Asked once: what came before may be another thing when it was held or failed."""
        is_new_death = effect.state == State.DEAD and effect.waits_for is None
        if not is_new_death or not rule.looks_back:
            return True
        first = await self._marks.is_first_failure(rule.name, job.queue, job.kind, effect)
        return On.DEAD in rule.wish.on or (first and On.FIRST_FAILURE in rule.wish.on)

    async def _may_pass(self, rule: Rule, effect: Effect, job: JobView) -> bool:
        if not rule.throttle_s or effect.event == RECOVERED or effect.has_failed:
            return True  # it passed when it was sent first: messages count, not tries
        return await self._marks.may_tell(rule, job.queue, job.kind, effect)

    async def _look_for_recovery(self, failing: Failing, rule: Rule) -> None:
        job = await self._marks.success_after(failing, rule.tags)
        if job is None:
            return
        told = [of_recovery(job, rule)] if On.RECOVERY in rule.wish.on else []
        if await self._marks.recover(failing, told):
            log.info("recovered", rule=rule.name, queue=failing.queue, kind=failing.kind)
