"""What may be submitted, and how bad fields are named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.api.door import Door
from penstock.api.job_body import JobBody
from penstock.api.submissions import Intake, Origin
from penstock.domain.defaults import Book, Defaults, Layer
from penstock.domain.job import NewJob, OnLost
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.domain.terms import ALL, BACKOFF, MAX_ATTEMPTS, TIMEOUT, Current, Terms
from tests.api.conftest import NOW_MS

NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
NAME_RULE = "must match ^[a-z0-9][a-z0-9_.-]{0,62}$"


def intake(door: Door) -> Intake:
    return Intake(door.recipe, Origin("ada", "00-aa-bb-01", suspect=False), NOW_MS)


def take(door: Door, **fields: Any) -> NewJob:
    job = intake(door).take({"kind": "echo", **fields})
    assert job is not None
    return job


def faults(door: Door, value: Any) -> dict[str, str]:
    taker = intake(door)
    assert taker.take(value) is None
    return {fault.pointer: fault.detail for fault in taker.faults}


def test_a_bare_kind_gets_all_defaults(door: Door) -> None:
    job = take(door)
    assert len(job.id) == 16
    new = NewJob(job.id, "default", "echo", traceparent="00-aa-bb-01", created_by="ada")
    assert job == replace(new, follows=ALL)


def test_of_a_large_batch_only_the_first_jobs_are_in_a_trace_that_began_with_it(door: Door) -> None:
    origin = Origin("ada", "00-aa-bb-01", suspect=False, traced_max=2)
    taker = Intake(door.recipe, origin, NOW_MS)
    jobs = [taker.take({"kind": "echo"}) for _ in range(4)]
    assert [job and job.traceparent for job in jobs] == ["00-aa-bb-01"] * 2 + [None] * 2


def test_every_field_arrives(door: Door) -> None:
    job = take(
        door,
        payload={"b": [1, "ü"]},
        queue="mail-out",
        priority=9,
        delay_s=5,
        max_attempts=1,
        backoff={"kind": "linear", "base_s": 1, "factor": 1.5, "max_s": 60, "jitter": "none"},
        timeout_s=0.1,
        on_lost="dead",
        tags=["a", "b c"],
    )
    assert job == NewJob(
        job.id,
        "mail-out",
        "echo",
        '{"b":[1,"ü"]}',
        9,
        None,
        5.0,
        1,
        Backoff(Curve.LINEAR, 1.0, 1.5, 60.0, Jitter.NONE),
        0.1,
        OnLost.DEAD,
        ("a", "b c"),
        "00-aa-bb-01",
        "ada",
    )


def test_a_part_of_a_backoff_leaves_the_rest_at_its_default(door: Door) -> None:
    assert take(door, backoff={"base_s": 7}).backoff == Backoff(base_s=7.0)
    assert take(door, backoff={}).backoff == Backoff()


def test_what_is_left_of_a_backoff_is_as_its_kind_has_it(door: Door) -> None:
    book = Book(kinds={"echo": Layer(backoff={"base_s": 9.0, "factor": 3.0})})
    job = take(replace(door, current=Current(Terms(book))), backoff={"base_s": 7})
    assert job.backoff == Backoff(base_s=7.0, factor=3.0)
    assert job.follows == MAX_ATTEMPTS | TIMEOUT


def test_what_a_job_states_does_not_follow(door: Door) -> None:
    assert take(door, max_attempts=5).follows == BACKOFF | TIMEOUT
    assert take(door, max_attempts=5, backoff={}, timeout_s=300).follows == 0


@pytest.mark.parametrize(
    ("asked", "expires_at_s", "ttl_s"),
    [
        ({}, None, 60.0),
        ({"delay_s": 10}, None, 70.0),
        ({"run_at": "2026-11-18T11:06:45Z"}, 65.0, 60.0),
        ({"ttl_s": 5}, None, 5.0),
        ({"expires_at": "2026-11-18T11:06:45Z"}, 5.0, None),
    ],
)
def test_an_expiry_that_a_kind_gives_counts_from_when_the_job_may_run(
    door: Door, asked: dict[str, Any], expires_at_s: float | None, ttl_s: float | None
) -> None:
    mine = replace(door, current=Current(Terms(Book(kinds={"echo": Layer({"ttl_s": 60.0})}))))
    job = take(mine, **asked)
    expires_at = None if expires_at_s is None else NOW + timedelta(seconds=expires_at_s)
    assert (job.expires_at, job.ttl_s) == (expires_at, ttl_s)


def test_unknown_kinds_are_refused_where_the_queue_is_strict(door: Door) -> None:
    book = Book(kinds={"far": Layer()}, queues={"s*": Layer({"strict": True})})
    mine = replace(door, current=Current(Terms(book, served=("echo",))))
    told = faults(mine, {"kind": "other", "queue": "strict"})
    assert told.keys() == {"/kind"}
    assert told["/kind"].startswith("'other' is no kind that is known here, and strict takes no")
    for kind in ("echo", "far"):
        assert take(mine, kind=kind, queue="strict").kind == kind
    assert take(mine, kind="other", queue="loose").kind == "other"


def test_defaults_are_the_operators(door: Door) -> None:
    book = Book(Defaults("mail", priority=7, max_attempts=2, timeout_s=9.5))
    mine = replace(door, current=Current(Terms(book)))
    job = take(mine)
    assert (job.queue, job.priority, job.max_attempts, job.timeout_s) == ("mail", 7, 2, 9.5)
    assert take(mine, queue="other").queue == "other"


def test_a_whole_float_is_an_integer_and_a_bool_is_not(door: Door) -> None:
    priority = take(door, priority=4.0).priority
    assert priority == 4
    assert type(priority) is int
    assert faults(door, {"kind": "a", "priority": True}) == {"/priority": "must be a whole number"}


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("2026-11-18T11:06:41Z", 1),
        ("2026-11-18t11:06:41.5z", 1.5),
        ("2026-11-18T12:06:41+01:00", 1),
        ("2026-11-18T11:06:41.123456789-00:00", 1.123456),
        ("2026-11-18T11:06:40Z", 0),
        ("2026-11-18T10:06:40Z", -3600),
        ("1970-01-01T00:00:00Z", -NOW_MS / 1000),
        ("0001-01-02T00:00:00+23:59", -63_930_596_740),
        ("0001-01-01T00:00:00+23:59", -63_930_596_800),  # in UTC before the year 1
    ],
)
def test_run_at_is_an_instant_that_may_have_passed(door: Door, sent: str, seconds: float) -> None:
    run_at = take(door, run_at=sent).run_at
    assert run_at is not None
    assert (run_at - NOW).total_seconds() == seconds


def test_five_years_ahead_is_the_limit(door: Door) -> None:
    assert take(door, run_at=NOW.replace(year=2031).isoformat()).run_at == NOW.replace(year=2031)
    assert take(door, delay_s=5 * 365 * 86_400).delay_s
    wrong = faults(door, {"kind": "a", "run_at": NOW.replace(year=2032).isoformat()})
    assert wrong == {"/run_at": "must be at most five years ahead"}
    assert "/delay_s" in faults(door, {"kind": "a", "delay_s": 6 * 366 * 86_400})


TIME = "must be an RFC 3339 time with its zone"
NO_TIME = "is not a time that exists"


@pytest.mark.parametrize(
    ("field", "value", "detail"),
    [
        ("kind", None, "must be a string"),
        ("kind", 5, "must be a string"),
        ("kind", "", NAME_RULE),
        ("kind", "Echo", NAME_RULE),
        ("kind", "echo\n", NAME_RULE),
        ("kind", "a" * 64, NAME_RULE),
        ("queue", "a:b{c}", NAME_RULE),
        ("queue", "../x", NAME_RULE),
        ("queue", "*", NAME_RULE),
        ("queue", "ü", NAME_RULE),
        ("queue", None, "must be a string"),
        ("priority", -1, "must be at least 0"),
        ("priority", 10, "must be at most 9"),
        ("priority", 4.5, "must be a whole number"),
        ("priority", "5", "must be a whole number"),
        ("priority", None, "must be a whole number"),
        ("priority", 1e300, "must be at most 9"),
        ("max_attempts", 0, "must be at least 1"),
        ("max_attempts", 101, "must be at most 100"),
        ("timeout_s", 0, "must be at least 0.1"),
        ("timeout_s", 86_401, "must be at most 86400"),
        ("timeout_s", True, "must be a number"),
        ("timeout_s", "300", "must be a number"),
        ("delay_s", -0.1, "must be at least 0"),
        ("delay_s", "1", "must be a number"),
        ("run_at", 1_795_000_000, TIME),
        ("run_at", None, TIME),
        ("run_at", "2027-01-01", TIME),
        ("run_at", "2027-01-01T00:00:00", TIME),
        ("run_at", "2027-01-01 00:00:00Z", TIME),
        ("run_at", "2027-01-01T00:00:00Z\n", TIME),
        ("run_at", "infinity", TIME),
        ("run_at", "٢٠٢٧-01-01T00:00:00Z", TIME),
        ("run_at", "2027-02-30T00:00:00Z", NO_TIME),
        ("run_at", "0000-01-01T00:00:00Z", NO_TIME),
        ("run_at", "2027-01-01T25:00:00Z", NO_TIME),
        ("run_at", "2027-01-01T00:00:00+99:00", NO_TIME),
        ("run_at", "9999-01-01T00:00:00Z", "must be at most five years ahead"),
        ("run_at", "9999-12-31T23:59:59-23:59", "must be at most five years ahead"),
        ("on_lost", "maybe", "must be 'retry' or 'dead'"),
        ("on_lost", None, "must be 'retry' or 'dead'"),
        ("tags", "a", "must be a list"),
        ("tags", None, "must be a list"),
        ("tags", ["a"] * 17, "must have at most 16 items"),
        ("backoff", "fixed", "must be an object"),
        ("backoff", None, "must be an object"),
    ],
)
def test_a_bad_field_is_named(door: Door, field: str, value: Any, detail: str) -> None:
    assert faults(door, {"kind": "echo", field: value}) == {f"/{field}": detail}


@pytest.mark.parametrize(
    ("tag", "detail"),
    [
        ("", "must have at least 1 character"),
        ("x" * 65, "must have at most 64 characters"),
        ("a\nb", "must have no control characters"),
        ("a\x85", "must have no control characters"),
        ("\0", "must have no control characters"),
        (5, "must be a string"),
    ],
)
def test_a_bad_tag_is_named_by_its_place(door: Door, tag: Any, detail: str) -> None:
    assert faults(door, {"kind": "echo", "tags": ["ok", tag]}) == {"/tags/1": detail}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "cubic"), ("base_s", -1), ("base_s", 86_401), ("factor", 0.9), ("factor", 101),
        ("max_s", 30 * 86_400 + 1), ("jitter", "some"), ("base_s", float("inf")), ("x", 1),
    ],
)  # fmt: skip
def test_a_bad_backoff_is_named_by_its_field(door: Door, field: str, value: Any) -> None:
    assert list(faults(door, {"kind": "echo", "backoff": {field: value}})) == [f"/backoff/{field}"]


@pytest.mark.parametrize("value", [None, 5, "echo", [], [{"kind": "echo"}], True])
def test_what_is_no_object_is_refused(door: Door, value: Any) -> None:
    assert faults(door, value) == {"": "must be an object"}


def test_all_bad_fields_are_named_at_once(door: Door) -> None:
    value = {
        "priority": 11,
        "tags": ["", "ok", 3],
        "backoff": {"base_s": "1"},
        "state": "succeeded",
        "notify": "u",
        "traceparent": "00",
        "a/b": 1,
        "run_at": "soon",
        "delay_s": 1,
        "payload": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]],
    }
    assert faults(door, value) == {
        "/kind": "is required",
        "/priority": "must be at most 9",
        "/tags/0": "must have at least 1 character",
        "/tags/2": "must be a string",
        "/backoff/base_s": "must be a number",
        "/state": "is set by the server",
        "/notify": "must be a list",
        "/traceparent": "is taken from the header of that name",
        "/a~1b": "is not a known field",
        "/run_at": "must be an RFC 3339 time with its zone",
        "/delay_s": "give run_at or delay_s, not both",
        "/payload": "is nested more than 32 levels deep",
    }


@pytest.mark.parametrize(
    "field",
    ["concurrency_key"],
)
def test_what_is_not_built_is_refused_as_such(door: Door, field: str) -> None:
    taker = intake(door)
    assert taker.take({"kind": "echo", field: None}) is None
    problem = taker.refusal()
    assert problem is not None
    assert (problem.slug, problem.status) == ("not-supported-yet", 422)
    assert problem.faults[0].pointer == f"/{field}"


def test_one_other_fault_makes_it_a_broken_rule(door: Door) -> None:
    taker = intake(door)
    taker.take({"kind": "echo", "concurrency_key": "k", "priority": 11})
    problem = taker.refusal()
    assert problem is not None
    assert problem.slug == "validation-failed"


MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"ttl_s": 60}, None),
        ({"ttl_s": 60, "delay_s": 59.9}, None),
        ({"ttl_s": 60, "delay_s": 60}, "/ttl_s"),
        ({"ttl_s": 60, "run_at": NOW - HOUR}, None),
        ({"ttl_s": 60, "run_at": NOW + HOUR}, "/ttl_s"),
        ({"expires_at": NOW + MINUTE}, None),
        ({"expires_at": NOW}, "/expires_at"),
        ({"expires_at": NOW - HOUR}, "/expires_at"),
        ({"expires_at": NOW - HOUR, "run_at": NOW - 2 * HOUR}, "/expires_at"),
        ({"expires_at": NOW + MINUTE, "delay_s": 61}, "/expires_at"),
        ({"expires_at": NOW + HOUR, "run_at": NOW + HOUR}, "/expires_at"),
        ({"expires_at": NOW + HOUR, "run_at": NOW + MINUTE}, None),
    ],
)
def test_a_job_expires_after_it_may_run_or_is_refused(
    door: Door, fields: dict[str, Any], pointer: str | None
) -> None:
    sent = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in fields.items()}
    if pointer is None:
        job = take(door, **sent)
        assert (job.ttl_s, job.expires_at) == (fields.get("ttl_s"), fields.get("expires_at"))
    else:
        wrong = faults(door, {"kind": "echo", **sent})
        assert wrong == {pointer: "must be later than when the job may run first"}


def test_a_unique_key_is_refused_or_answered_by_its_holder(door: Door) -> None:
    assert take(door, unique_key="a b/ä").unique_key == "a b/ä"
    assert not take(door, unique_key="a", on_conflict="reject").return_holder
    assert take(door, unique_key="a", on_conflict="return").return_holder
    wrong = faults(door, {"kind": "echo", "on_conflict": "return"})
    assert wrong == {"/on_conflict": "needs a unique_key"}


def test_twins_within_one_request_are_named_and_only_they(door: Door) -> None:
    taker = intake(door)
    for i, name in enumerate(["ax", "bx", "ay", "ax", "ay"]):
        fields = {"kind": "echo", "queue": name[0], "unique_key": name[1]}
        assert taker.take(fields, f"/jobs/{i}") is not None
    problem = taker.refusal()
    assert problem is not None
    assert problem.slug == "duplicate-job"
    assert [(fault.pointer, fault.detail) for fault in problem.faults] == [
        ("/jobs/3/unique_key", "is that of /jobs/0 too"),
        ("/jobs/4/unique_key", "is that of /jobs/2 too"),
    ]


def test_a_known_kinds_payload_is_checked_and_an_unknown_ones_is_not(door: Door) -> None:
    assert faults(door, {"kind": "picky", "payload": {}}) == {"/payload/url": "is required"}
    assert take(door, kind="picky", payload={"url": "x"}).payload == '{"url":"x"}'
    assert take(door, kind="unheard-of", payload=5).payload == "5"


def test_pointers_of_a_batch_begin_at_the_job(door: Door) -> None:
    taker = intake(door)
    taker.take({"kind": "picky", "priority": 10}, "/jobs/3")
    assert [fault.pointer for fault in taker.faults] == ["/jobs/3/priority", "/jobs/3/payload/url"]


def test_ids_grow_within_a_request(door: Door) -> None:
    taker = intake(door)
    made = [taker.take({"kind": "echo"}) for _ in range(100)]
    ids = [job.id for job in made if job]
    assert ids == sorted(set(ids))
    assert len(ids) == 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
near_misses = st.sampled_from(
    [
        0,
        -0.0,
        4.0,
        1e308,
        2**70,
        "echo",
        "fixed",
        "retry",
        "2027-01-01T00:00:00Z",
        {"kind": "fixed"},
    ]
)
field_names = st.sampled_from([*JobBody.__annotations__, "state", "notify", "x"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(field_names, json_values | near_misses), suspect=st.booleans())
def test_whatever_is_sent_becomes_a_job_or_faults_and_never_an_exception(
    door: Door, value: dict[str, Any], suspect: bool
) -> None:
    taker = Intake(door.recipe, Origin("ada", None, suspect=suspect), NOW_MS)
    job = taker.take(value, "/jobs/0")
    assert (job is None) == bool(taker.faults)
    assert all(fault.pointer.startswith("/jobs/0") for fault in taker.faults)


def test_a_payload_that_is_left_out_where_one_is_wanted_is_required(door: Door) -> None:
    picky = replace(door, payload_errors=lambda _kind, _payload: [("", "must be an object")])
    assert faults(picky, {"kind": "a"}) == {"/payload": "is required"}
    assert faults(picky, {"kind": "a", "payload": 5}) == {"/payload": "must be an object"}
