"""A trace from a submission to its webhook, as a collector gets it of a real replica."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.egress.receiver import Receiver
from tests.support.api import Api
from tests.support.collector import Collector, collector
from tests.support.replica import ReplicaProcess
from tests.support.waiting import eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"
STATE = "congo=t61rcWkgMzE"
MODULES = '["penstock.handlers.samples", "tests.support.tracing_kinds"]'
SECRET = '["whsec_' + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB0cmFjZXM=" + '"]'


@pytest.fixture
async def taken() -> AsyncIterator[Collector]:
    async with collector() as one:
        yield one


@pytest.fixture
async def process(
    dsn: str, redis_url: str, tmp_path: Path, taken: Collector
) -> AsyncIterator[ReplicaProcess]:
    environ = {
        "PENSTOCK_HANDLERS__MODULES": MODULES,
        "PENSTOCK_WEBHOOK__SECRETS": SECRET,
        "PENSTOCK_WEBHOOK__SCHEMES": '["http", "https"]',
        "PENSTOCK_TRACING__ENABLED": "true",
        "PENSTOCK_TRACING__ENDPOINT": taken.url,
        "PENSTOCK_TRACING__HEADERS": "authorization=Bearer%20canary-of-spans",
        "PENSTOCK_LOG__HANDLERS": "true",
        "OTEL_SERVICE_NAME": "jobs",
    }
    one = ReplicaProcess(dsn, redis_url, tmp_path, environ)
    one.start()
    await one.ready()
    yield one
    one.stop()


def lines(process: ReplicaProcess, event: str) -> list[dict[str, object]]:
    said = process.log_file.read_bytes().splitlines()
    told = [orjson.loads(line) for line in said if line.startswith(b"{")]
    return [line for line in told if line["event"] == event]


async def test_one_trace_from_the_submission_to_the_webhook(
    process: ReplicaProcess, taken: Collector, there: Receiver
) -> None:
    body = {
        "kind": "calls-and-submits",
        "payload": {"url": f"{there.url}/called"},
        "notify": [{"on": ["succeeded"], "webhook": f"{there.url}/hook"}],
    }
    sent = {"traceparent": CALLER, "tracestate": STATE}
    async with Api(process.url) as api:
        status, job = await api.call("POST", "/v1/jobs", body, sent)
        assert status == 201, job
        ended = await api.ended(job["id"])
        (run,) = await taken.named("process calls-and-submits")
        (own,) = await taken.named("own")
        (request,) = await taken.named("POST /v1/jobs")
        (call,) = [one for one in await taken.named("GET") if one.kind == "CLIENT"]
        (child,) = await taken.named("process in-a-thread")
        (inner,) = await taken.named("own-in-thread")
        (hook,) = await taken.named("send webhook")
    assert (request.kind, request.trace, request.parent) == ("SERVER", TRACE, CALLER[36:52])
    assert request.attributes["http.response.status_code"] == 201
    assert job["traceparent"] == request.traceparent
    for span, parent in ((run, request), (child, run), (hook, request)):
        assert (span.parent, span.links) == (parent.id, [(TRACE, parent.id)])
    for span, parent in ((own, run), (call, own), (inner, child)):
        assert (span.parent, span.links) == (parent.id, [])
    assert {span.trace for span in (run, own, call, child, inner, hook)} == {TRACE}
    assert [one.kind for one in (run, child, hook)] == ["CONSUMER", "CONSUMER", "CLIENT"]
    assert run.attributes["messaging.message.id"] == job["id"]
    assert run.attributes["messaging.destination.name"] == "default"
    assert run.attributes["penstock.job.attempt"] == 1
    assert run.attributes["penstock.job.outcome"] == "succeeded"
    assert ended["result"] == {"traceparent": run.traceparent, "tracestate": STATE}
    by_path = {seen.path: seen.headers for seen in there.seen}
    assert by_path["/called"]["traceparent"] == call.traceparent
    assert by_path["/hook"]["traceparent"] == hook.traceparent
    assert {by_path[path]["tracestate"] for path in by_path} == {STATE}
    assert_collector_is_asked_rightly(taken)
    await assert_lines_are_about_it(process, job["id"], child.attributes["messaging.message.id"])


def assert_collector_is_asked_rightly(taken: Collector) -> None:
    assert taken.resource()["service.name"] == "jobs"
    asked = {seen.headers["Authorization"] for seen in taken.receiver.seen}
    assert asked == {"Bearer canary-of-spans"}
    assert {seen.path for seen in taken.receiver.seen} == {"/v1/traces"}


async def assert_lines_are_about_it(process: ReplicaProcess, job: str, child: str) -> None:
    (said,) = lines(process, "said in a thread")
    assert (said["job_id"], said["attempt"], said["trace_id"]) == (child, 1, TRACE)

    async def shown() -> list[dict[str, object]]:
        return lines(process, "handler_said")

    (line,) = await eventually(shown, "what the handler logged is in the log")
    assert (line["message"], line["job_id"], line["trace_id"]) == ("calling", job, TRACE)
    assert "canary-of-spans" not in process.log_file.read_text()


async def test_a_failure_is_told_and_one_who_asks_for_none_is_not_sampled(
    process: ReplicaProcess, taken: Collector
) -> None:
    async with Api(process.url) as api:
        silent = {"traceparent": CALLER[:-1] + "0"}
        status, unseen = await api.call("POST", "/v1/jobs", {"kind": "in-a-thread"}, silent)
        assert status == 201
        assert (await api.ended(unseen["id"]))["result"][:35] == CALLER[:35]
        job = await api.submit("fails-traced", max_attempts=1)
        (run,) = await taken.named("process fails-traced")
        assert run.is_error
        assert run.attributes["error.type"] == "ValueError"
        assert run.attributes["messaging.message.id"] == job
        assert run.events == [
            {"exception.type": "ValueError", "exception.message": "as asked"},
        ]
        assert run.trace != TRACE  # nobody sent one: it began with the request
    process.terminate()
    assert await asyncio.to_thread(process.wait) == 0
    assert [one for one in taken.spans() if one.trace == TRACE] == []


async def test_a_handler_in_a_child_process_is_in_its_attempt(
    process: ReplicaProcess, taken: Collector, dsn: str
) -> None:
    async with Api(process.url) as api:
        id_ = await api.submit("in-a-thread", delay_s=0.7)
        db = await asyncpg.connect(dsn)
        assert await db.execute("UPDATE job_due SET losses = 2") == "UPDATE 1"
        await db.close()
        await api.ended(id_)
        (run,) = await taken.named("process in-a-thread")
        (inner,) = await taken.named("own-in-thread")
    assert (inner.trace, inner.parent) == (run.trace, run.id)
    assert run.attributes["messaging.message.id"] == id_
    (said,) = lines(process, "said in a thread")
    assert (said["job_id"], said["trace_id"]) == (id_, run.trace)
