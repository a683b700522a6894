"""`notify`: what is taken, what is refused and where, and how it is shown."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from penstock.api import notices
from penstock.api.door import Door
from penstock.api.submissions import Intake, Origin
from penstock.domain.effect import Channel, On, Wish, wishes_from
from penstock.server import Replica
from tests.api.conftest import NOW_MS
from tests.support.api import Api

HOOK = {"on": ["succeeded", "dead"], "webhook": "https://example.com/hook"}
SHOWN = {**HOOK, "webhook": "https://example.com/…"}
MAIL = {"on": ["cancelled"], "email": "ops@example.com"}


def reach(channel: Channel, endpoint: str) -> str | None:
    """Anybody but whom names evil."""
    return f"{channel} refused" if "evil" in endpoint else None


def faults(door: Door, notify: Any) -> dict[str, str]:
    taker = Intake(replace(door, reach=reach).recipe, Origin("ada", None, suspect=False), NOW_MS)
    job = taker.take({"kind": "echo", "notify": notify})
    assert (job is None) == bool(taker.faults)
    return {fault.pointer: fault.detail for fault in taker.faults}


def test_what_is_asked_for_is_kept_and_read_back() -> None:
    kept = notices.text([HOOK, MAIL])
    assert kept is not None
    assert orjson.loads(kept) == [HOOK, MAIL]
    assert wishes_from(kept) == (
        Wish((On.SUCCEEDED, On.DEAD), Channel.WEBHOOK, "https://example.com/hook"),
        Wish((On.CANCELLED,), Channel.EMAIL, "ops@example.com"),
    )
    assert notices.text([]) is None


@pytest.mark.parametrize("good", [[], [HOOK], [MAIL, HOOK]])
def test_good_lists_are_taken(door: Door, good: list[Any]) -> None:
    assert faults(door, good) == {}


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        (None, {"/notify": "must be a list"}),
        ({}, {"/notify": "must be a list"}),
        ([HOOK] * 11, {"/notify": "must have at most 10 items"}),
        ([{}], {"/notify/0/on": "is required"}),
        ([1], {"/notify/0": "must be an object"}),
        ([{**HOOK, "on": []}], {"/notify/0/on": "must have at least 1 item"}),
        ([{**HOOK, "on": ["dead"] * 2}], {"/notify/0/on": "names an end twice"}),
        ([{"on": ["dead"]}], {"/notify/0": "must have one of webhook and email"}),
        ([HOOK | MAIL], {"/notify/0": "must have one of webhook and email"}),
        ([HOOK, {**HOOK, "url": "x"}], {"/notify/1/url": "is not a known field"}),
        ([{**HOOK, "webhook": None}], {"/notify/0/webhook": "must be a string"}),
        (
            [{**HOOK, "webhook": "x" * 2049}],
            {"/notify/0/webhook": "must have at most 2048 characters"},
        ),
        ([MAIL, {**HOOK, "webhook": "https://evil"}], {"/notify/1/webhook": "webhook refused"}),
        ([{**MAIL, "email": "evil@x.com"}], {"/notify/0/email": "email refused"}),
        (
            [{**MAIL, "email": "a@x.com\nBcc: b@y.com"}],
            {"/notify/0/email": "must have no control characters"},
        ),
        (
            [HOOK, {**HOOK, "on": ["dead"]}],
            {"/notify/1": "is told already: name an endpoint once, with all its ends"},
        ),
    ],
    ids=str,
)
def test_bad_lists_are_refused_with_their_place(
    door: Door, bad: Any, found: dict[str, str]
) -> None:
    assert faults(door, bad) == found


@pytest.mark.parametrize("end", ["failed", "first_failure", "recovery", "skipped", 1])
def test_only_ends_of_jobs_may_be_asked_for(door: Door, end: Any) -> None:
    told = faults(door, [{**HOOK, "on": [end]}])
    why = "must be 'succeeded', 'dead' or 'cancelled' (of a workflow, dead means failed)"
    assert told == {"/notify/0/on/0": why}


async def test_jobs_batches_and_workflows_keep_and_show_it(api: Api) -> None:
    job = {"kind": "echo", "notify": [HOOK], "delay_s": 3600}
    status, made = await api.call("POST", "/v1/jobs", job)
    assert (status, made["notify"]) == (201, [SHOWN])
    assert await api.get(f"/v1/jobs/{made['id']}") == made
    _, batch = await api.call("POST", "/v1/jobs/batch", {"jobs": [job, {"kind": "echo"}]})
    shown = [(await api.get(f"/v1/jobs/{one['id']}"))["notify"] for one in batch["items"]]
    assert shown == [[SHOWN], []]
    listed = (await api.get("/v1/jobs?state=scheduled"))["items"]
    assert [one["notify"] for one in listed] == [[SHOWN]] * 2
    body = {"name": "w", "notify": [HOOK], "jobs": [{"name": "a", **job}]}
    status, flow = await api.call("POST", "/v1/workflows", body)
    assert (status, flow["notify"]) == (201, [SHOWN])
    assert (await api.get(f"/v1/workflows/{flow['id']}"))["notify"] == [SHOWN]
    assert (await api.get(f"/v1/jobs/{flow['jobs'][0]['id']}"))["notify"] == [SHOWN]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/jobs", {"kind": "echo", "notify": [MAIL]}, "/notify/0/email"),
        (
            "/v1/jobs/batch",
            {"jobs": [{"kind": "echo"}, {"kind": "echo", "notify": [MAIL]}]},
            "/jobs/1/notify/0/email",
        ),
        (
            "/v1/workflows",
            {"name": "w", "notify": [MAIL], "jobs": [{"name": "a", "kind": "echo"}]},
            "/notify/0/email",
        ),
    ],
)
async def test_a_channel_that_the_server_lacks_is_refused(
    replica: Replica, api: Api, path: str, body: Any, pointer: str
) -> None:
    assert replica.engine.reach.mails is False
    status, problem = await api.call("POST", path, body)
    assert (status, problem["type"]) == (422, "/problems/validation-failed")
    assert [one["pointer"] for one in problem["errors"]] == [pointer]
    assert "smtp.host" in problem["errors"][0]["detail"]


async def test_a_webhook_inside_is_refused(api: Api) -> None:
    hook = {"on": ["dead"], "webhook": "http://169.254.169.254/"}
    status, problem = await api.call("POST", "/v1/jobs", {"kind": "echo", "notify": [hook]})
    assert status == 422
    assert problem["errors"][0]["pointer"] == "/notify/0/webhook"
