"""Messages: what the relay sends of a job or workflow, as it was at the end that is told of.

In: claimed effects. Out: a message each, or why there is none. Always holds: a job is told as the
API shows it (api lends us its views), but as that attempt left it, whatever has become of it since;
one that is pruned is told no more. Reads are bounded: a payload or result that is too large for
a message stays behind, and the message says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from penstock.domain.effect import TEST_EVENT, Delivery, Effect, Fate, Message
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.domain.view import AttemptView, DeadJobView, JobView, WorkflowView
from penstock.domain.workflow import WorkflowState
from penstock.loops.digest import Digests
from penstock.loops.sieve import JOINS, Sieve
from penstock.store.ends import End, Ends, EndView
from penstock.store.workflow_reads import WorkflowReads

_AT_ONCE = 20  # jobs read by one statement

_TEST = "This is a test: nothing has happened."
GONE = Delivery(Fate.DROPPED, "what it tells of is gone")


@dataclass(frozen=True, slots=True)
class Show:
    """How api shows what the store read."""

    job: Callable[[JobView], dict[str, Any]]
    attempt: Callable[[AttemptView], dict[str, Any]]
    workflow: Callable[[WorkflowView], dict[str, Any]]
    dead_job: Callable[[DeadJobView], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds effects of rules back, and what makes one message of many."""

    sieve: Sieve
    digests: Digests


@dataclass(frozen=True, slots=True)
class Extent:
    """What a channel's messages carry: payload and result up to so many characters each; `whole`:
    the attempts too, and who else is told, whose URLs are no business of any receiver's."""

    part_max: int
    whole: bool = False


class Composer:
    def __init__(
        self, ends: Ends, workflows: WorkflowReads, show: Show, rules: Rules, extent: Extent
    ) -> None:
        self._ends = ends
        self._workflows = workflows
        self._show = show
        self._rules = rules
        self._extent = extent

    async def compose(self, effects: Sequence[Effect]) -> list[Message | Delivery]:
        """In the order of the effects; a `Delivery` for what is not to be sent, or not now."""
        made: list[Message | Delivery] = []
        for start in range(0, len(effects), _AT_ONCE):
            part = effects[start : start + _AT_ONCE]
            jobs = await self._jobs(part)
            workflows = await self._workflow_messages(part)
            told = [
                await self._of_job(one, jobs) if one.job is not None else _other(one, workflows)
                for one in part
            ]
            await self._rules.digests.join(
                [effect for effect, one in zip(part, told, strict=True) if one is JOINS]
            )
            made += told
        return made

    async def _of_job(self, effect: Effect, jobs: "_Jobs") -> Message | Delivery:
        if effect.is_another_s:
            return await self._rules.digests.wait_on(effect)
        if effect.gathers or effect.message == effect.id:
            return await self._rules.digests.of(effect)
        return await jobs.of(effect)

    async def _jobs(self, effects: Sequence[Effect]) -> "_Jobs":
        wanted = [_end(one) for one in effects if one.job is not None]
        found = await self._ends.jobs(wanted, self._extent.part_max) if wanted else {}
        attempts: dict[tuple[JobId, int], list[AttemptView]] = {}
        if found and self._extent.whole:
            attempts = await self._ends.attempts(list(found))
        return _Jobs(found, attempts, self._show, self._rules.sieve, self._extent.whole)

    async def _workflow_messages(self, effects: Sequence[Effect]) -> dict[bytes, Message]:
        wanted = {one.workflow for one in effects if one.workflow is not None}
        if not wanted:
            return {}
        views = {view.id: view for view in await self._workflows.workflows(list(wanted))}
        told = [one for one in effects if one.workflow in views]
        failed = [
            (one.workflow, one.at)
            for one in told
            if one.workflow is not None and one.state != WorkflowState.SUCCEEDED
        ]
        dead = await self._workflows.dead_jobs_then(failed) if failed else {}
        return {
            one.id: self._of_workflow(one, views[one.workflow], dead.get((one.workflow, one.at)))
            for one in told
            if one.workflow is not None
        }

    def _of_workflow(
        self, effect: Effect, view: WorkflowView, dead: Sequence[DeadJobView] | None
    ) -> Message:
        then = replace(view, state=WorkflowState(effect.state), finished_at=effect.at)
        told = self._show.workflow(then)
        told["dead_jobs"] = [self._show.dead_job(one) for one in dead or ()]
        if not self._extent.whole:
            del told["notify"]
        return Message(effect, orjson.dumps(told).decode(), view.traceparent)


@dataclass(frozen=True, slots=True)
class _Jobs:
    """What was read of jobs and their attempts."""

    found: dict[End, EndView]
    attempts: dict[tuple[JobId, int], list[AttemptView]]
    show: Show
    sieve: Sieve
    whole: bool

    async def of(self, effect: Effect) -> Message | Delivery:
        end = _end(effect)
        view = self.found.get(end)
        if view is None:
            return GONE
        kept_back = await self.sieve.judge(effect, view.job)
        return kept_back or self._message(effect, end, view)

    def _message(self, effect: Effect, end: End, view: EndView) -> Message:
        then = replace(view.job, finished_at=effect.at, reason=effect.reason)
        told = {**self.show.job(then), "reason": effect.reason}
        if view.is_cut:
            told["truncated"] = True
        if not self.whole:
            del told["notify"]
        else:
            tried = self.attempts.get((end.job, end.attempt), [])
            told["attempts"] = [self.show.attempt(one) for one in tried]
        return Message(effect, orjson.dumps(told).decode(), then.traceparent)


def _other(effect: Effect, workflows: Mapping[bytes, Message]) -> Message | Delivery:
    """What tells of a workflow, or of nothing."""
    if effect.event != TEST_EVENT:
        return workflows.get(effect.id, GONE)
    told = {"message": _TEST} if effect.rule is None else {"message": _TEST, "rule": effect.rule}
    return Message(effect, orjson.dumps(told).decode())


def _end(effect: Effect) -> End:
    assert effect.job is not None
    return End(effect.job, effect.attempt, State(effect.state))
