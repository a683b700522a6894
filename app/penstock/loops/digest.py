"""Messages that tell of many: effects join groups, and a group whose time has come is one message.

In: effects of rules that group. Out: a message a group, or why there is none now. Always holds: who
is of a message is settled, and committed, before it is sent; asked again about the same one, as
after a crash or a failure, it tells of the same ends under the same id. It is bounded: the first
jobs stand for all.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from penstock.clock import rfc3339
from penstock.domain.effect import Delivery, Effect, Fate, Message, Rule
from penstock.domain.grouping import Grouping
from penstock.domain.view import JobView
from penstock.loops.sieve import Sieve
from penstock.store.ends import End, Ends, EndView
from penstock.store.groups import Groups, Told

SAMPLES_MAX = 20
_TEXT_MAX = 500  # of an error
_SHOWN = ("id", "kind", "queue", "state", "attempt", "tags", "workflow_id", "finished_at")
_TIDY_S = 10.0

ANOTHERS = Delivery(Fate.GROUPED)

ShowJob = Callable[[JobView], dict[str, Any]]


class Digests:
    def __init__(self, groups: Groups, ends: Ends, sieve: Sieve, show: ShowJob) -> None:
        self._groups = groups
        self._ends = ends
        self._sieve = sieve
        self._show = show

    async def join(self, effects: Sequence[Effect]) -> None:
        """Takes effects into the groups of their rules."""
        by_rule: dict[str, list[Effect]] = defaultdict(list)
        for effect in effects:
            by_rule[effect.rule or ""].append(effect)
        for name, of in by_rule.items():
            rule = self._sieve.rule(name)
            if rule is not None and rule.group is not None:
                await self._groups.join(rule, rule.group, of)

    async def of(self, effect: Effect) -> Message | Delivery:
        """The message of an effect that leads a group, or did when its members were settled."""
        if (held := self._sieve.hold(effect)) is not None:
            return held
        if effect.gathers:
            grouping = _grouping_of(self._sieve.rule(effect.rule or ""))
            settled = await self._groups.settle(effect, grouping.jobs_max, grouping.every_s)
            if settled is None:
                return await self.wait_on(effect)
            named = (settled.dedupe, settled.event, settled.labels)
            effect = replace(effect, dedupe=named[0], event=named[1], labels=named[2])
        told = await self._groups.told(effect, SAMPLES_MAX)
        found = await self._ends.jobs([end for end, _, _ in told.samples], 0)
        data = self._data(effect, told, found)
        return Message(replace(effect, job=None), orjson.dumps(data).decode())

    async def wait_on(self, effect: Effect) -> Delivery:
        """For one that another's message tells of."""
        await self._groups.rejoin(effect)
        return ANOTHERS

    async def give_up(self, effect: Effect) -> None:
        """Whatever becomes of an effect that leads becomes of its members."""
        grouping = _grouping_of(self._sieve.rule(effect.rule or ""))
        await self._groups.settle(effect, grouping.jobs_max, 0.0)

    async def tidy(self) -> float:
        await self._groups.tidy()
        return _TIDY_S

    def _data(self, effect: Effect, told: Told, found: Mapping[End, EndView]) -> dict[str, Any]:
        jobs = [
            self._sample(replace(found[end].job, finished_at=at, reason=reason), reason)
            for end, reason, at in told.samples
            if end in found
        ]
        return {
            "rule": effect.rule,
            "state": effect.state,
            "group": orjson.loads(effect.labels or "{}"),
            "count": told.count,
            "first_at": rfc3339(told.first_at),
            "last_at": rfc3339(told.last_at),
            "jobs": jobs,
        }

    def _sample(self, view: JobView, reason: str | None) -> dict[str, Any]:
        shown = self._show(view)
        told = {name: shown[name] for name in _SHOWN}
        return {**told, "reason": reason, "error": _error(view.error)}


def _grouping_of(rule: Rule | None) -> Grouping:
    """Of a group that its rule no longer asks for, too."""
    return rule.group if rule is not None and rule.group is not None else Grouping(every_s=0)


def _error(text: str | None) -> dict[str, str] | None:
    """Without its details, and not too long."""
    if text is None:
        return None
    error = orjson.loads(text)
    return {name: str(error.get(name, ""))[:_TEXT_MAX] for name in ("type", "message")}
