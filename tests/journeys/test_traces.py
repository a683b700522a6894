"""A trace from a submission to its webhook, as a collector gets it of a real replica."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
    async with serving(ReplicaProcess(dsn, redis_url, tmp_path, environ(taken))) as one:
        yield one


@pytest.fixture
async def sparing(
    dsn: str, redis_url: str, tmp_path: Path, taken: Collector
) -> AsyncIterator[ReplicaProcess]:
    """It keeps one trace, and no other while we look."""
    few = environ(taken) | {"PENSTOCK_TRACING__PER_S": "0.001"}
    async with serving(ReplicaProcess(dsn, redis_url, tmp_path, few)) as one:
        yield one


def environ(taken: Collector) -> dict[str, str]:
    return {
        "PENSTOCK_HANDLERS__MODULES": MODULES,
        "PENSTOCK_WEBHOOK__SECRETS": SECRET,
        "PENSTOCK_WEBHOOK__SCHEMES": '["http", "https"]',
        "PENSTOCK_TRACING__ENABLED": "true",
        "PENSTOCK_TRACING__ENDPOINT": taken.url,
        "PENSTOCK_TRACING__HEADERS": "authorization=Bearer%20canary-of-spans",
        "PENSTOCK_LOG__HANDLERS": "true",
        "OTEL_SERVICE_NAME": "jobs",
    }


@asynccontextmanager
async def serving(one: ReplicaProcess) -> AsyncIterator[ReplicaProcess]:
    try:
        one.start()
        await one.ready()
        yield one
    finally:
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


async def test_a_trace_that_nobody_keeps_is_on_no_job_and_goes_nowhere(
    sparing: ReplicaProcess, taken: Collector, there: Receiver
) -> None:
    hook = {"on": ["succeeded"], "webhook": f"{there.url}/hook"}
    asked = {"kind": "in-a-thread", "notify": [hook]}
    async with Api(sparing.url) as api:
        status, batch = await api.call("POST", "/v1/jobs/batch", {"jobs": [asked] * 3})
        assert status == 201, batch
        jobs = [await api.ended(item["id"]) for item in batch["items"]]
        flow = {"name": "flow", "jobs": [{"name": "a", **asked}]}
        status, workflow = await api.call("POST", "/v1/workflows", flow)
        assert (status, workflow["traceparent"]) == (201, None), workflow
        status, callers = await api.call("POST", "/v1/jobs", asked, {"traceparent": CALLER})
        assert (status, callers["traceparent"][:35]) == (201, CALLER[:35])
        await eventually(lambda: told(there, 5), "each has told of its end")
    first, *others = (job["result"] for job in jobs)
    assert others == [None, None], "of the batch only the first job was in the trace"
    sparing.terminate()
    assert await asyncio.to_thread(sparing.wait) == 0
    kept = {TRACE, first[3:35]}
    traces = [span.trace for span in taken.spans()]
    assert len(traces) == 2 * len(["POST", "process", "own-in-thread", "send webhook"])
    assert set(traces) == kept
    sent = [seen.headers.get("traceparent") for seen in there.seen]
    assert sorted(one[3:35] for one in sent if one) == sorted(kept)
    said = [line.get("trace_id") for line in lines(sparing, "said in a thread")]
    assert sorted(map(str, said)) == sorted([*kept, "None", "None", "None"])


async def told(there: Receiver, count: int) -> bool:
    return len(there.seen) >= count
