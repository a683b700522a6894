"""The audit log on a live replica: each call that changes something leaves one entry, and `GET
/v1/audit` finds it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from penstock import settings
from penstock.api.routes import ROUTES
from penstock.domain import ids
from penstock.domain.audit_log import Action
from penstock.domain.delivery import endpoint_id
from penstock.server import Replica, running
from tests.support.api import Api, token
from tests.support.letterbox import HOOK, Letterbox, opened
from tests.support.waiting import eventually

QUEUE = "mail"
JOB = {"kind": "echo", "queue": QUEUE, "delay_s": 3600}
WORKFLOW = {"name": "two", "jobs": [{"name": "a", **JOB}, {"name": "b", **JOB}]}
SECRET_PAYLOAD = {"password": "hunter2"}


@dataclass(frozen=True)
class Made:
    """A call that is about to be made: the path's part that varies, what to send, what the entry
    says then. `object_id` None: the answer's id."""

    key: str = ""
    body: Any = None
    object_id: str | None = None
    queue: str | None = QUEUE
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Stage:
    api: Api
    box: Letterbox

    async def job(self, **fields: Any) -> str:
        return await self.api.submit("echo", queue=QUEUE, delay_s=3600, **fields)

    async def cancelled(self) -> str:
        id_ = await self.job()
        await self.api.call("POST", f"/v1/jobs/{id_}/cancel")
        return id_

    async def dead(self, queue: str = QUEUE) -> str:
        id_ = await self.api.submit("fail", {"retryable": False}, queue=queue)
        assert (await self.api.ended(id_))["state"] == "dead"
        return id_

    async def workflow(self) -> str:
        _, made = await self.api.call("POST", "/v1/workflows", WORKFLOW)
        return str(made["id"])

    async def cancelled_workflow(self) -> str:
        id_ = await self.workflow()
        await self.api.call("POST", f"/v1/workflows/{id_}/cancel")
        return id_


def changed(what: str, before: Any, after: Any) -> dict[str, Any]:
    return {"before": {what: before}, "after": {what: after}}


async def submit(_: Stage) -> Made:
    return Made(body={**JOB, "payload": SECRET_PAYLOAD}, details={})


async def submit_many(_: Stage) -> Made:
    return Made(body={"jobs": [JOB, JOB]}, object_id="", details={"jobs": 2})


async def cancel_job(stage: Stage) -> Made:
    id_ = await stage.job()
    return Made(id_, object_id=id_, details=changed("state", "scheduled", "cancelled"))


async def retry_job(stage: Stage) -> Made:
    id_ = await stage.cancelled()
    return Made(id_, object_id=id_, details={"before": {"state": "cancelled"}})


async def submit_workflow(_: Stage) -> Made:
    return Made(body=WORKFLOW, details={"jobs": 2})


async def add(stage: Stage) -> Made:
    id_ = await stage.workflow()
    return Made(id_, {"jobs": [{"name": "c", **JOB}]}, object_id=id_, details={"jobs": 1})


async def cancel_workflow(stage: Stage) -> Made:
    id_ = await stage.workflow()
    return Made(id_, object_id=id_, details=changed("halt", None, "cancel"))


async def retry_workflow(stage: Stage) -> Made:
    id_ = await stage.cancelled_workflow()
    return Made(id_, object_id=id_, details={"before": {"state": "cancelled"}, "jobs": 2})


async def pause(_: Stage) -> Made:
    return Made(QUEUE, object_id=QUEUE, details=changed("paused", False, True))


async def resume(stage: Stage) -> Made:
    await stage.api.call("POST", f"/v1/queues/{QUEUE}/pause")
    return Made(QUEUE, object_id=QUEUE, details=changed("paused", True, False))


async def replay(stage: Stage) -> Made:
    id_ = await stage.dead()
    body = {"payload": {"message": "hunter2"}, "queue": "other"}
    details = {"before": {"state": "dead"}, "payload_changed": True, "new_queue": "other"}
    return Made(id_, body, object_id=id_, details=details)


async def replay_many(stage: Stage) -> Made:
    await stage.dead("many")
    await stage.dead("many")
    wanted = {"queue": ["many"], "kind": ["fail"]}
    details = {"filter": wanted, "replayed": 2}
    return Made(body={"filter": wanted}, object_id="", queue="many", details=details)


async def discard(stage: Stage) -> Made:
    id_ = await stage.dead()
    return Made(id_, object_id=id_, details={})


async def resend(stage: Stage) -> Made:
    id_ = ids.text(await stage.box.over(job_id=ids.parse(await stage.job())))
    details = {"channel": "webhook", "endpoint_id": endpoint_id(HOOK)}
    return Made(id_, object_id=id_, queue=None, details=details)


async def enable(stage: Stage) -> Made:
    await stage.box.fails(is_disabled=True)
    body, details = {"endpoint": HOOK}, {"channel": "webhook"}
    return Made("", body, object_id=endpoint_id(HOOK), queue=None, details=details)


async def probe(_: Stage) -> Made:
    url = "https://example.invalid/hunter2"
    return Made(body={"webhook": url}, object_id=endpoint_id(url), queue=None)


async def reload(_: Stage) -> Made:
    return Made(object_id="", queue=None)


# How to come to a call of each route that changes something. A new action goes here too.
MADE: Mapping[Action, Callable[[Stage], Awaitable[Made]]] = {
    Action.JOB_SUBMIT: submit,
    Action.JOB_SUBMIT_MANY: submit_many,
    Action.JOB_CANCEL: cancel_job,
    Action.JOB_RETRY: retry_job,
    Action.WORKFLOW_SUBMIT: submit_workflow,
    Action.WORKFLOW_ADD: add,
    Action.WORKFLOW_CANCEL: cancel_workflow,
    Action.WORKFLOW_RETRY: retry_workflow,
    Action.QUEUE_PAUSE: pause,
    Action.QUEUE_RESUME: resume,
    Action.LETTER_REPLAY: replay,
    Action.LETTER_REPLAY_MANY: replay_many,
    Action.LETTER_DISCARD: discard,
    Action.DELIVERY_RESEND: resend,
    Action.ENDPOINT_ENABLE: enable,
    Action.NOTIFICATION_TEST: probe,
    Action.CONFIG_RELOAD: reload,
}


async def test_every_call_that_changes_something_leaves_one_entry_that_tells_of_it(
    replica: Replica, api: Api, dsn: str
) -> None:
    await every_change_leaves_an_entry(replica, api, dsn)


async def every_change_leaves_an_entry(replica: Replica, api: Api, dsn: str) -> None:
    """`dsn`: of one who may write to all tables."""
    async with Api(replica.url, token("viewer", "admin", sub="ada")) as ada, opened(dsn) as box:
        for route in ROUTES:
            if route.action is None:
                continue
            made = await MADE[route.action](Stage(api, box))
            path = route.path.replace("{id}", made.key).replace("{name}", made.key)
            request_id = f"the-{route.action}"
            sent = {"X-Request-Id": request_id, "X-Forwarded-For": "203.0.113.9"}
            async with ada.answer(route.method, path, made.body, sent) as answer:
                assert answer.ok, (route.action, await answer.text())
                told = await answer.json()
            (entry,) = (await api.get(f"/v1/audit?request_id={request_id}"))["items"]
            object_id = told["id"] if made.object_id is None else made.object_id or None
            details = entry.pop("details")
            if made.details is not None:
                assert made.details.items() <= details.items(), (route.action, details)
            assert "hunter2" not in str(details)
            assert ids.parse(entry.pop("id"))
            assert entry.pop("created_at")
            assert entry == {
                "actor": "ada",
                "roles": ["admin", "viewer"],
                "action": route.action,
                "object": route.action.object,
                "object_id": object_id,
                "queue": made.queue,
                "outcome": "done",
                "address": "127.0.0.1",
                "request_id": request_id,
            }


async def test_a_repeated_answer_a_dry_run_and_what_is_refused_leave_none(api: Api) -> None:
    sent = {"Idempotency-Key": "once"}
    for _ in range(2):
        assert (await api.call("POST", "/v1/jobs", JOB, sent))[0] == 201
    unique = {**JOB, "unique_key": "one", "on_conflict": "return"}
    assert [(await api.call("POST", "/v1/jobs", unique))[0] for _ in range(2)] == [201, 200]
    dry = {"filter": {}, "dry_run": True}
    assert (await api.call("POST", "/v1/dead-letters/replay", dry))[0] == 200
    assert (await api.call("POST", "/v1/jobs", {}))[0] == 422
    assert (await api.call("POST", f"/v1/jobs/{ids.text(bytes(16))}/cancel"))[0] == 404
    entries = (await api.get("/v1/audit"))["items"]
    assert [entry["action"] for entry in entries] == ["job.submit"] * 2


async def test_what_a_handler_submits_leaves_none(api: Api) -> None:
    parent = await api.submit("spawning", {"count": 2, "seconds": 0})
    assert (await api.ended(parent))["state"] == "succeeded"
    assert len((await api.get("/v1/jobs"))["items"]) == 3
    entries = (await api.get("/v1/audit"))["items"]
    assert [entry["object_id"] for entry in entries] == [parent]


async def test_calls_of_callers_who_may_not_are_told_of_but_not_without_end(
    replica: Replica, api: Api
) -> None:
    async with Api(replica.url, token("viewer", sub="eve")) as eve:
        for _ in range(15):
            assert (await eve.call("POST", f"/v1/queues/{QUEUE}/pause"))[0] == 403

    async def look() -> Any:
        found = (await api.get("/v1/audit?outcome=refused&actor=eve"))["items"]
        return found if len(found) >= 10 else None

    found = await eventually(look, "the refusals are there")
    assert len(found) == 10
    assert {entry["object_id"] for entry in found} == {QUEUE}
    assert {entry["action"] for entry in found} == {"queue.pause"}
    queues = await api.get("/v1/queues")
    assert queues["items"] == []


async def test_an_admin_of_some_queues_sees_what_is_about_those(replica: Replica, api: Api) -> None:
    for queue in ("mail", "billing"):
        await api.call("POST", f"/v1/queues/{queue}/pause")
    await api.submit_many([{**JOB, "queue": "mail"}, {**JOB, "queue": "billing"}])
    async with Api(replica.url, token("admin", queues=["mail"])) as some:
        (entry,) = (await some.get("/v1/audit"))["items"]
        assert entry["queue"] == "mail"
        assert (await some.get("/v1/audit?queue=billing"))["items"] == []


async def test_filters_narrow_and_pages_follow_one_another(replica: Replica, api: Api) -> None:
    async with Api(replica.url, token(sub="ada")) as ada:
        for _ in range(3):
            await ada.call("POST", "/v1/queues/mail/pause")
            await api.call("POST", "/v1/queues/mail/resume")
    id_ = await api.submit("echo")
    whole = (await api.get("/v1/audit"))["items"]
    assert [entry["action"] for entry in whole] == [
        "job.submit",
        *["queue.resume", "queue.pause"] * 3,
    ]

    async def found(query: str) -> list[int]:
        items = (await api.get(f"/v1/audit?{query}"))["items"]
        return [whole.index(item) for item in items]

    assert await found("actor=ada") == [2, 4, 6]
    assert await found("action=queue.resume") == [1, 3, 5]
    assert await found("action=queue.resume&action=job.submit") == [0, 1, 3, 5]
    assert await found("object=queue&actor=tests") == [1, 3, 5]
    assert await found(f"object_id={id_.upper()}") == [0]
    assert await found("object_id=mail&action=queue.pause") == [2, 4, 6]
    assert await found("object=job&action=queue.pause") == []
    assert await found("queue=mail&outcome=done") == [1, 2, 3, 4, 5, 6]
    assert await found(f"request_id={whole[3]['request_id']}") == [3]
    at = whole[3]["created_at"]
    assert set(await found(f"created_after={at}")) >= {0, 1, 2}
    assert set(await found(f"created_before={at}")) >= {4, 5, 6}
    for query in ("", "object_id=mail&", "actor=ada&", "object=queue&"):
        gathered: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            part = await api.get(f"/v1/audit?{query}limit=2{cursor and f'&cursor={cursor}'}")
            gathered += part["items"]
            cursor = part["next_cursor"]
        assert gathered == (await api.get(f"/v1/audit?{query}"))["items"]


@pytest.mark.parametrize(
    "query", ["who=ada", "action=job.explode", "object=thing", "outcome=maybe", "actor="]
)
async def test_a_filter_that_nobody_knows_is_refused(api: Api, query: str) -> None:
    assert (await api.call("GET", f"/v1/audit?{query}"))[0] == 400


async def test_settings_leave_submissions_out_and_believe_a_proxy(
    replica_settings: settings.Settings,
) -> None:
    changed = replica_settings.model_copy(
        update={
            "audit_log": replica_settings.audit_log.model_copy(update={"submissions": False}),
            "http": replica_settings.http.model_copy(update={"trusted_proxies": ("127.0.0.0/8",)}),
        }
    )
    async with running(changed) as one, Api(one.url) as api:
        await api.submit("echo")
        await api.submit_many([JOB])
        await api.call("POST", "/v1/workflows", WORKFLOW)
        sent = {"X-Forwarded-For": "10.0.0.1, 203.0.113.9"}
        await api.call("POST", "/v1/queues/mail/pause", headers=sent)
        (entry,) = (await api.get("/v1/audit"))["items"]
        assert (entry["action"], entry["address"]) == ("queue.pause", "203.0.113.9")
