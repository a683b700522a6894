"""Jobs, attempts and queues as the contract shows them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from penstock.api import views
from penstock.clock import rfc3339
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, State
from penstock.domain.retry import Backoff
from penstock.domain.view import AttemptView, JobView, ProgressView, QueueView

ID = JobId(bytes.fromhex("019a97e1d5007000800000000000000f"))
WORKER = bytes.fromhex("019a97e1d50070008000000000000001")
AT = datetime(2026, 11, 18, 11, 6, 40, 123456, tzinfo=UTC)

VIEW = JobView(
    id=ID,
    queue="mail",
    kind="echo",
    state=State.CANCELLED,
    priority=5,
    payload='{"a":  1.0}',
    result=None,
    error='{"type":"x","message":"y","details":null}',
    attempt=2,
    failures=1,
    crashes=0,
    max_attempts=5,
    on_lost="retry",
    backoff=Backoff(),
    timeout_s=300.0,
    run_at=AT,
    created_at=AT,
    started_at=AT,
    finished_at=None,
    reason="requested",
    worker=WORKER,
    tags=("a",),
    traceparent=None,
    created_by="ada",
)

FIELDS = (
    "id, kind, queue, state, priority, payload, result, error, attempt, failures, crashes, "
    "max_attempts, on_lost, backoff, timeout_s, run_at, expires_at, created_at, started_at, "
    "finished_at, unique_key, concurrency_key, tags, workflow_id, name, depends_on, run_if, "
    "progress, cancel_reason, worker, traceparent, created_by, notify"
)


def test_a_job_has_exactly_the_fields_of_the_contract() -> None:
    assert views.job(VIEW).keys() == set(FIELDS.split(", "))


def test_a_job_is_shown_as_it_was_sent() -> None:
    text = orjson.dumps(views.job(VIEW))
    assert b'"payload":{"a":  1.0}' in text
    shown = orjson.loads(text)
    assert shown["id"] == "019a97e1-d500-7000-8000-00000000000f"
    assert shown["worker"] == "019a97e1-d500-7000-8000-000000000001"
    assert shown["run_at"] == "2026-11-18T11:06:40.123Z"
    assert shown["finished_at"] is None
    assert shown["error"] == {"type": "x", "message": "y", "details": None}
    assert shown["tags"] == ["a"]
    assert shown["depends_on"] == []
    assert shown["backoff"] == {
        "kind": "exponential",
        "base_s": 2.0,
        "factor": 2.0,
        "max_s": 3600.0,
        "jitter": "full",
    }


@pytest.mark.parametrize(
    ("state", "reason"), [(State.CANCELLED, "requested"), (State.DEAD, None), (State.READY, None)]
)
def test_only_a_cancelled_job_has_a_cancel_reason(state: State, reason: str | None) -> None:
    assert views.job(replace(VIEW, state=state))["cancel_reason"] == reason


def test_progress_is_shown_once_there_is_some() -> None:
    assert views.job(VIEW)["progress"] is None
    for progress in (ProgressView(40.0, "half-way"), ProgressView(0.0, None)):
        shown = orjson.loads(orjson.dumps(views.job(replace(VIEW, progress=progress))))
        assert shown["progress"] == {"percent": progress.percent, "message": progress.message}


SOON = timedelta(seconds=1.5)


@pytest.mark.parametrize(
    ("run_at", "delay_s", "state", "first"),
    [
        (None, None, State.READY, AT),
        (None, 0.0, State.READY, AT),
        (None, 1.5, State.SCHEDULED, AT + SOON),
        (AT + SOON, None, State.SCHEDULED, AT + SOON),
        (AT, None, State.READY, AT),
        (AT - SOON, None, State.READY, AT),
    ],
)
def test_a_new_job_is_ready_or_scheduled_by_the_time_of_its_commit(
    run_at: datetime | None, delay_s: float | None, state: State, first: datetime
) -> None:
    new = NewJob(ID, "mail", "echo", run_at=run_at, delay_s=delay_s)
    assert views.standing(new, AT) == (state, first)
    shown = views.submitted(new, AT)
    assert (shown["state"], shown["run_at"]) == (state, rfc3339(first))
    assert shown["created_at"] == "2025-11-18T16:52:31.104Z"
    assert views.brief(new.id, state) == {"id": shown["id"], "state": state}


def test_a_new_job_looks_as_it_will_when_it_is_read() -> None:
    assert views.submitted(NewJob(ID, "mail", "echo"), AT).keys() == views.job(VIEW).keys()


def test_an_attempt_under_way_has_no_end() -> None:
    shown = views.attempt(AttemptView(3, WORKER, AT, None, None, None, None))
    assert shown == {
        "attempt": 3,
        "worker": "019a97e1-d500-7000-8000-000000000001",
        "started_at": "2026-11-18T11:06:40.123Z",
        "finished_at": None,
        "outcome": None,
        "error": None,
        "next_run_at": None,
    }


def test_a_queue_counts_all_states() -> None:
    shown = views.queue(QueueView("mail", True, 60.0, {State.READY: 3}, 1.25, 8 / 15, 0.0))
    assert orjson.loads(orjson.dumps(shown)) == {
        "name": "mail",
        "paused": True,
        "counts": {state.value: 3 if state is State.READY else 0 for state in State},
        "oldest_ready_age_s": 1.25,
        "throughput": {"succeeded_per_s": 0.533, "dead_per_s": 0.0},
        "settings": {"priority_aging_s": 60.0},
    }


def test_a_timeout_is_shown_alike_wherever_it_comes_from() -> None:
    new = views.submitted(NewJob(ID, "mail", "echo", timeout_s=5), AT)
    assert b'"timeout_s":5.0' in orjson.dumps(new)


def test_an_answer_ends_with_a_line_end() -> None:
    body = views.answer({"a": 1}).body
    assert body == b'{"a":1}\n'


def test_a_job_of_a_workflow_is_shown_with_what_it_waits_for() -> None:
    flow = JobId(bytes.fromhex("019a97e1d5007000800000000000000a"))
    shown = views.job(
        replace(VIEW, workflow_id=flow, name="b", depends_on=("a",), run_if="all_failed")
    )
    assert shown["workflow_id"] == "019a97e1-d500-7000-8000-00000000000a"
    assert (shown["name"], shown["depends_on"], shown["run_if"]) == ("b", ("a",), "all_failed")
    plain = views.job(VIEW)
    assert [plain[n] for n in ("workflow_id", "name", "depends_on", "run_if")] == [
        None,
        None,
        (),
        None,
    ]


def test_what_waits_for_parents_is_blocked_until_they_have_put_it_elsewhere() -> None:
    new = NewJob(ID, "mail", "echo", depends_on=("a",))
    assert views.submitted(new, AT)["state"] == "blocked"
    assert views.submitted(new, AT)["run_if"] == "all_succeeded"
    skipped = views.submitted(new, AT, State.SKIPPED)
    assert (skipped["state"], skipped["finished_at"]) == ("skipped", rfc3339(AT))
