"""What leaves the house when something ends: what, to whom, under which id."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.domain import ids
from penstock.domain.effect import (
    RECOVERED,
    Channel,
    Delivery,
    Effect,
    EndedJob,
    EndedWorkflow,
    Fate,
    On,
    Policy,
    Rule,
    Wish,
    of_recovery,
    of_workflow,
    wait_s,
    wishes_from,
    wishes_json,
)
from penstock.domain.job import State
from penstock.domain.workflow import WorkflowState
from tests.support.making import job_id

HOOK = Wish((On.SUCCEEDED, On.DEAD), Channel.WEBHOOK, "https://example.com/hook")
MAIL = Wish((On.DEAD, On.CANCELLED), Channel.EMAIL, "ops@example.com")


def ended(state: State, **fields: Any) -> EndedJob:
    return EndedJob(
        **{"id": job_id(), "attempt": 3, "queue": "q", "kind": "k", **fields}, state=state
    )


def test_wishes_are_kept_as_they_were_asked_for() -> None:
    text = wishes_json([HOOK, MAIL])
    assert text == (
        '[{"on": ["succeeded", "dead"], "webhook": "https://example.com/hook"},'
        ' {"on": ["dead", "cancelled"], "email": "ops@example.com"}]'
    )
    assert wishes_from(text) == (HOOK, MAIL)
    assert wishes_json([]) is None
    assert wishes_from(None) == ()


@pytest.mark.parametrize(
    ("state", "channels"),
    [
        (State.SUCCEEDED, [Channel.WEBHOOK]),
        (State.DEAD, [Channel.WEBHOOK, Channel.EMAIL]),
        (State.CANCELLED, [Channel.EMAIL]),
        (State.SKIPPED, []),
    ],
)
def test_a_job_tells_those_who_asked_for_that_end(state: State, channels: list[Channel]) -> None:
    job = ended(state, wishes=(HOOK, MAIL), reason="r")
    effects = Policy().of_job(job)
    assert [one.channel for one in effects] == channels
    for one in effects:
        assert (one.job, one.attempt, one.state, one.reason) == (job.id, 3, state, "r")
        assert one.event == f"penstock.job.{state}.v1"


def test_ids_differ_by_attempt_and_endpoint_and_by_nothing_else() -> None:
    job = ended(State.DEAD, wishes=(HOOK, replace(HOOK, endpoint="https://example.com/2")))
    first, second = Policy().of_job(job)
    assert first.dedupe.startswith(f"{ids.text(job.id)}:3:penstock.job.dead.v1:")
    assert [one.dedupe for one in Policy().of_job(job)] == [first.dedupe, second.dedupe]
    again = Policy().of_job(replace(job, attempt=4))
    assert len({one.dedupe for one in (first, second, *again)}) == 4


def test_each_death_is_a_dead_letter_where_there_is_a_broker() -> None:
    policy = Policy("a-topic")
    job = ended(State.DEAD)
    (one,) = policy.of_job(job)
    assert (one.channel, one.endpoint) == (Channel.DEAD_LETTER, "a-topic")
    assert one.dedupe == f"{ids.text(job.id)}:3"
    assert policy.of_job(ended(State.SUCCEEDED)) == []
    assert Policy().of_job(job) == []


@pytest.mark.parametrize(
    ("fields", "is_covered"),
    [
        ({}, True),
        ({"queues": ("bill*", "x")}, True),
        ({"queues": ("mail",)}, False),
        ({"kinds": ("rep?rt",)}, True),
        ({"kinds": ("Report",)}, False),
        ({"tags": ("red", "green")}, True),
        ({"tags": ("green",)}, False),
        ({"queues": ("billing",), "kinds": ("other",)}, False),
    ],
)
def test_a_rule_covers_by_queue_kind_and_tag(fields: Any, is_covered: bool) -> None:
    rule = Rule("a", HOOK, **fields)
    assert rule.covers("billing", "report", ("red", "blue")) is is_covered


def test_rules_tell_besides_what_the_job_asks_for() -> None:
    rules = (Rule("a", HOOK), Rule("b", HOOK, queues=("other",)), Rule("c", MAIL))
    effects = Policy(rules=rules).of_job(ended(State.DEAD, wishes=(HOOK,)))
    assert [(one.rule, one.channel) for one in effects] == [
        (None, Channel.WEBHOOK),
        ("a", Channel.WEBHOOK),
        ("c", Channel.EMAIL),
    ]
    assert len({one.dedupe for one in effects}) == 3


def test_a_rule_for_recoveries_costs_successes_nothing() -> None:
    rule = Rule("a", replace(HOOK, on=(On.RECOVERY,)))
    policy = Policy(rules=(rule,))
    assert policy.looks_at == {State.DEAD}
    assert policy.of_job(ended(State.SUCCEEDED)) == []
    assert len(policy.of_job(ended(State.DEAD))) == 1
    told = of_recovery(ended(State.SUCCEEDED), rule)
    assert (told.event, told.rule, told.state) == (RECOVERED, "a", "succeeded")
    assert RECOVERED in told.dedupe


@pytest.mark.parametrize(
    ("on", "looks_back"),
    [((On.DEAD,), False), ((On.FIRST_FAILURE,), True), ((On.DEAD, On.RECOVERY), True)],
)
def test_some_rules_look_back(on: tuple[On, ...], looks_back: bool) -> None:
    assert Rule("a", replace(HOOK, on=on)).looks_back is looks_back


@pytest.mark.parametrize(
    ("state", "count"),
    [(WorkflowState.SUCCEEDED, 1), (WorkflowState.FAILED, 2), (WorkflowState.CANCELLED, 1)],
)
def test_a_workflow_tells_too(state: WorkflowState, count: int) -> None:
    workflow = EndedWorkflow(job_id(), state, 1_795_000_000_000, (HOOK, MAIL))
    effects = of_workflow(workflow)
    assert len(effects) == count
    for one in effects:
        assert (one.workflow, one.job, one.state) == (workflow.id, None, state)
        assert one.event == f"penstock.workflow.{state}.v1"
    again = of_workflow(replace(workflow, ended_ms=1_795_000_000_001))
    told = {one.dedupe for one in effects}
    assert told.isdisjoint(one.dedupe for one in again), "it ran again, and ended again"


def effect(channel: Channel, tries: int) -> Effect:
    at = datetime.now(UTC)
    return Effect(b"", channel, "e", "d", "v", job_id(), None, 1, "dead", None, None, at, tries)


def test_the_waits_are_those_of_standard_webhooks_and_end() -> None:
    later = Delivery(Fate.LATER)
    waits = [wait_s(effect(Channel.WEBHOOK, n), later, 0.0) for n in range(1, 11)]
    assert waits == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400, None]
    assert wait_s(effect(Channel.EMAIL, 1), later, 0.999) == pytest.approx(6, abs=0.01)
    asked = Delivery(Fate.LATER, after_s=60)
    assert wait_s(effect(Channel.WEBHOOK, 1), asked, 0.0) == 60
    assert wait_s(effect(Channel.WEBHOOK, 2), asked, 0.0) == 300


def test_a_broker_is_tried_for_ever() -> None:
    waits = [wait_s(effect(Channel.DEAD_LETTER, n), Delivery(Fate.LATER), 0.0) for n in (1, 2, 500)]
    assert waits == [1, 2, 60]
