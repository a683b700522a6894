"""What the door answers by itself, over a real connection and with nothing behind it."""

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog

from penstock.api.door import Limits
from penstock.api.routes import ROUTES
from penstock.domain.caller import GRANTS, Role
from penstock.domain.errors import StoreUnavailable
from penstock.domain.readiness import Readiness
from penstock.domain.submission import Accepted, Submission
from penstock.telemetry import logs
from tests.api.conftest import Served
from tests.api.wire import Answer, call, close, raw, read_answer

MakeToken = Callable[..., str]
POST = b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\n"
ID = "01934a5b-0000-7000-8000-000000000000"


def check_problem(answer: Answer, status: int, slug: str) -> Any:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == f"/problems/{slug}"
    assert document["status"] == status
    assert {"title", "detail"} <= document.keys()
    check_common_headers(answer)
    return document


def check_common_headers(answer: Answer) -> None:
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["server"] == "penstock"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["x-request-id"])


def bearer(token: str) -> str:
    return f"Bearer {token}"


async def test_livez_and_readyz_need_no_token(served: Served) -> None:
    async with served() as port:
        for path in ("/livez", "/readyz", "/readyz?verbose=1"):
            answer = await call(port, "GET", path)
            assert answer.status == 200
            check_common_headers(answer)


async def test_readyz_tells_why_not(served: Served) -> None:
    state = Readiness(False, ["draining"], ["redis"], {"promoter": 0.12345})
    async with served(readiness=lambda: state) as port:
        document = check_problem(await call(port, "GET", "/readyz"), 503, "not-ready")
    assert document["detail"] == "draining"
    assert document["reasons"] == ["draining"]
    assert document["degraded"] == ["redis"]
    assert document["loops"] == {"promoter": 0.123}


async def test_metrics_count_requests_by_route_and_not_by_path(
    served: Served, token: MakeToken
) -> None:
    async with served() as port:
        for path in (f"/v1/jobs/{ID}", "/v1/queues/a", "/nowhere/1", "/nowhere/2"):
            await call(port, "GET", path)
        answer = await call(port, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.body.decode()
    name = "penstock_http_requests_total"
    assert f'{name}{{method="GET",route="/v1/jobs/{{id}}",status="401"}} 1.0' in text
    assert f'{name}{{method="GET",route="none",status="404"}} 2.0' in text
    assert "nowhere" not in text


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1", "/v1/", "/v1/jobs/", "/v1/jobs/a/b", "/v1/jobs/a/attempts/1", "//v1/jobs",
        "/v1//jobs", "/v1/jobs/../queues", "/v1/jobs/%2e%2e/queues", "/V1/jobs", "/v1/workflow",
        "/v1/schedules", "/v1/events", "/v2/jobs", "/metrics/", "/livez;x", "/v1/queues/a%2Fpause",
        "/{}", "/v1/{}", "/openapi.json/", "/docs/", "/docs/../livez",
    ],
)  # fmt: skip
async def test_a_path_that_does_not_exist_is_404(
    served: Served, token: MakeToken, path: str
) -> None:
    async with served() as port:
        answer = await call(port, "GET", path, authorization=bearer(token()))
    check_problem(answer, 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/jobs/batch", "POST"),
        ("DELETE", "/v1/jobs", "GET, POST"),
        ("PUT", f"/v1/jobs/{ID}", "GET"),
        ("HEAD", f"/v1/jobs/{ID}", "GET"),
        ("OPTIONS", "/v1/queues", "GET"),
        ("HEAD", "/livez", "GET"),
        ("OPTIONS", "/metrics", "GET"),
        ("PATCH", "/v1/queues/a", "GET"),
        ("TRACE", "/v1/jobs", "GET, POST"),
    ],
)
async def test_another_method_is_405_and_names_those_that_are(
    served: Served, method: str, path: str, allow: str
) -> None:
    async with served() as port:
        answer = await call(port, method, path, x_http_method_override="GET")
    assert answer.status == 405
    assert answer.headers["allow"] == allow
    if method != "HEAD":
        check_problem(answer, 405, "method-not-allowed")


@pytest.mark.parametrize("target", ["/v1/jobs/%00", "/v1/queues?x=%00", "/v1/queues/a%00b"])
async def test_a_nul_in_the_url_is_400(served: Served, target: str) -> None:
    async with served() as port:
        check_problem(await call(port, "GET", target), 400, "bad-request")


@pytest.mark.parametrize("target", ["/v1/jobs/%ff", "http://x/livez", "*", "livez"])
async def test_a_target_of_another_form_is_400(served: Served, target: str) -> None:
    async with served() as port:
        check_problem(await call(port, "GET", target), 400, "bad-request")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello TLS\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n"
        + b"".join(b"h%d: x\r\n" % i for i in range(500))
        + b"\r\n",
    ],
)
async def test_what_is_not_http_is_a_problem_too(
    served: Served, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            check_problem(await read_answer(reader), 400, "bad-request")
            assert await reader.read() == b""
            await close(writer)
    assert caplog.records == []


async def test_a_sane_request_id_is_taken_over_and_another_replaced(served: Served) -> None:
    async with served() as port:
        sane = await call(port, "GET", "/livez", x_request_id="a.B-9_z")
        assert sane.headers["x-request-id"] == "a.B-9_z"
        for bad in ("", "a b", "a" * 129, "é", "a;b"):
            answer = await call(port, "GET", "/livez", x_request_id=bad)
            assert answer.headers["x-request-id"] != bad
            check_common_headers(answer)


SECURED = [route for route in ROUTES if route.path.startswith("/v1")]


@pytest.mark.parametrize("route", SECURED, ids=lambda route: f"{route.method} {route.path}")
async def test_every_call_under_v1_needs_a_token_with_the_role_of_the_table(
    served: Served, token: MakeToken, route: Any
) -> None:
    path = re.sub("{.*}", "nothing-like-an-id!", route.path)
    async with served() as port:
        nobody = await call(port, route.method, path + "?token=" + token())
        check_problem(nobody, 401, "unauthenticated")
        assert nobody.headers["www-authenticate"] == "Bearer"
        for role in Role:
            answer = await call(
                port, route.method, path + "?x=1", authorization=bearer(token(roles=[role]))
            )
            if route.role in GRANTS[role]:
                check_problem(answer, 400, "unknown-query-parameter")
            else:
                check_problem(answer, 403, "forbidden")


def test_only_what_machines_ask_is_open() -> None:
    open_ = {route.path for route in ROUTES if route.role is None}
    docs = {"/openapi.json", "/docs", "/docs/{file}", "/problems/{slug}"}
    assert open_ == {"/livez", "/readyz", "/metrics"} | docs


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        ({"content_type": "text/plain"}, 415, "unsupported-media-type"),
        ({"content_type": "application/json; charset=utf-16"}, 415, "unsupported-media-type"),
        ({"content_type": "application/jsonx"}, 415, "unsupported-media-type"),
        ({"content_type": ""}, 415, "unsupported-media-type"),
        ({"content_encoding": "gzip"}, 415, "unsupported-media-type"),
        ({"content_encoding": "br"}, 415, "unsupported-media-type"),
        ({"content_encoding": "zstd"}, 415, "unsupported-media-type"),
        ({"content_encoding": "x-unknown"}, 415, "unsupported-media-type"),
        ({"content_type": "application/json; charset=UTF-8"}, 422, "validation-failed"),
        ({"content_encoding": "identity"}, 422, "validation-failed"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch"])
async def test_only_plain_json_is_taken(
    served: Served, token: MakeToken, path: str, headers: dict[str, str], status: int, slug: str
) -> None:
    async with served() as port:
        answer = await call(
            port, "POST", path, b'{"x": 1}', authorization=bearer(token()), **headers
        )
    check_problem(answer, status, slug)


@pytest.mark.parametrize("key", ["", "k" * 256, "schlüssel", "a\tb"])
@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/jobs", b'{"kind": "echo"}'), ("/v1/jobs/batch", b'{"jobs": [{"kind": "echo"}]}')],
)
async def test_what_is_no_idempotency_key_is_400(
    served: Served, token: MakeToken, path: str, body: bytes, key: str
) -> None:
    headers = {"authorization": bearer(token()), "idempotency_key": key}
    async with served() as port:
        answer = await call(port, "POST", path, body, **headers)
    check_problem(answer, 400, "bad-idempotency-key")


async def test_a_body_without_a_type_is_415(served: Served, token: MakeToken) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: {bearer(token())}\r\n"
    sent = head + "content-length: 2\r\n\r\n{}"
    async with served() as port:
        check_problem(await raw(port, sent.encode()), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "not-json"),
        (b"", 400, "not-json"),
        (b"[]", 422, "validation-failed"),
        (b"{}", 422, "validation-failed"),
        (b'{"kind": "echo", "concurrency_key": 1}', 422, "not-supported-yet"),
    ],
)
async def test_bad_bodies(
    served: Served, token: MakeToken, body: bytes, status: int, slug: str
) -> None:
    async with served() as port:
        answer = await call(port, "POST", "/v1/jobs", body, authorization=bearer(token()))
    check_problem(answer, status, slug)


async def test_a_body_over_the_limit_is_413_before_it_is_sent(
    served: Served, token: MakeToken
) -> None:
    async with served() as port:
        for path, size in (("/v1/jobs", 2001), ("/v1/jobs/batch", 200_001)):
            answer = await call(
                port, "POST", path, b"", content_length=str(size), authorization=bearer(token())
            )
            check_problem(answer, 413, "payload-too-large")


async def test_a_chunked_body_over_the_limit_is_413(served: Served, token: MakeToken) -> None:
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: {bearer(token())}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    async with served() as port:
        for chunks in (3, 300):
            body = b"3e8\r\n" + b" " * 1000 + b"\r\n"
            answer = await raw(port, head.encode() + body * chunks + b"0\r\n\r\n")
            check_problem(answer, 413, "payload-too-large")


async def test_a_broken_chunk_is_400(served: Served, token: MakeToken) -> None:
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: {bearer(token())}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    async with served() as port:
        answer = await raw(port, head.encode() + b"zz\r\n{}\r\n0\r\n\r\n")
        check_problem(answer, 400, "bad-request")


async def test_a_slow_body_is_408_and_the_connection_is_closed(
    served: Served, token: MakeToken
) -> None:
    async with served() as port:
        answer = await call(
            port, "POST", "/v1/jobs", b"{", content_length="9", authorization=bearer(token())
        )
    check_problem(answer, 408, "request-timeout")
    assert answer.headers["connection"] == "close"


async def test_headers_that_never_end_are_not_waited_for(served: Served) -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nx: ")
        async with asyncio.timeout(2):
            assert await reader.read() == b""
        await close(writer)


async def test_an_idle_connection_is_closed_after_a_while(served: Served) -> None:
    async with served(limits=Limits(keepalive_s=0.3)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await read_answer(reader)).status == 200
        async with asyncio.timeout(2):
            assert await reader.read() == b""
        await close(writer)


async def test_a_connection_serves_many_requests_also_pipelined(served: Served) -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 5)
        assert [(await read_answer(reader)).status for _ in range(5)] == [200] * 5
        await close(writer)


async def test_who_expects_100_continue_is_told_to_go_on(served: Served, token: MakeToken) -> None:
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: {bearer(token())}\r\n"
        "content-type: application/json\r\ncontent-length: {size}\r\nexpect: {expect}\r\n\r\n"
    )
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.format(size=2, expect="100-continue").encode())
        assert (await read_answer(reader)).status == 100
        writer.write(b"{}")
        check_problem(await read_answer(reader), 422, "validation-failed")
        await close(writer)
        refused = await raw(port, head.format(size=5000, expect="100-continue").encode())
        check_problem(refused, 413, "payload-too-large")
        odd = await raw(port, head.format(size=2, expect="200-ok").encode())
        check_problem(odd, 417, "expectation-failed")


async def test_calls_without_fields_take_an_empty_object_and_nothing_else(
    served: Served, token: MakeToken
) -> None:
    async with served() as port:
        path, auth = "/v1/queues/NOT-A-NAME/pause", bearer(token())
        for body in (None, b"", b"{}", b" {} "):
            answer = await call(port, "POST", path, body, authorization=auth)
            check_problem(answer, 404, "not-found")
        named = await call(port, "POST", path, b'{"force": true}', authorization=auth)
        assert check_problem(named, 422, "validation-failed")["errors"] == [
            {"pointer": "/force", "detail": "is not a known field"}
        ]
        check_problem(await call(port, "POST", path, b"x", authorization=auth), 400, "not-json")


@pytest.mark.parametrize("key", ["x", "1", ID[:-1], ID + "0", "%20", "%27%20OR%201", "e%CC%81"])
async def test_an_id_of_another_form_is_404(served: Served, token: MakeToken, key: str) -> None:
    async with served() as port:
        for path in (f"/v1/jobs/{key}", f"/v1/jobs/{key}/attempts", f"/v1/jobs/{key}/logs"):
            answer = await call(port, "GET", path, authorization=bearer(token()))
            check_problem(answer, 404, "not-found")


async def test_a_queue_that_the_token_does_not_open_is_404_by_name(
    served: Served, token: MakeToken
) -> None:
    auth = bearer(token(queues=["mail-*"]))
    async with served() as port:
        for method, path in (
            ("GET", "/v1/queues/billing"),
            ("POST", "/v1/queues/billing/pause"),
            ("POST", "/v1/queues/billing/resume"),
        ):
            check_problem(await call(port, method, path, authorization=auth), 404, "not-found")


async def test_submitting_to_such_a_queue_is_403_and_names_the_jobs(
    served: Served, token: MakeToken
) -> None:
    auth = bearer(token(queues=["mail-*"]))
    async with served() as port:
        body = b'{"kind": "echo", "queue": "billing"}'
        one = await call(port, "POST", "/v1/jobs", body, authorization=auth)
        assert check_problem(one, 403, "forbidden-queue")["errors"][0]["pointer"] == "/queue"
        batch = b'{"jobs": [{"kind": "echo", "queue": "mail-a"}, {"kind": "echo"}]}'
        many = await call(port, "POST", "/v1/jobs/batch", batch, authorization=auth)
        document = check_problem(many, 403, "forbidden-queue")
        assert [error["pointer"] for error in document["errors"]] == ["/jobs/1/queue"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"{}", ["/jobs"]),
        (b'{"jobs": {}}', ["/jobs"]),
        (b'{"jobs": null}', ["/jobs"]),
        (b'{"jobs": []}', ["/jobs"]),
        (b'{"jobs": [' + b"1," * 500 + b"1]}", ["/jobs"]),
        (b'{"jobs": [{"kind": "a"}], "mode": 1}', ["/mode"]),
        (
            b'{"jobs": [{"kind": "a"}, {"kind": "a", "priority": 10}, 5, {}]}',
            ["/jobs/1/priority", "/jobs/2", "/jobs/3/kind"],
        ),
    ],
)
async def test_a_bad_batch_names_all_that_is_wrong(
    served: Served, token: MakeToken, body: bytes, pointers: list[str]
) -> None:
    async with served() as port:
        answer = await call(port, "POST", "/v1/jobs/batch", body, authorization=bearer(token()))
    document = check_problem(answer, 422, "validation-failed")
    assert [error["pointer"] for error in document["errors"]] == pointers


async def test_no_more_than_a_hundred_bad_jobs_are_named(served: Served, token: MakeToken) -> None:
    body = b'{"jobs": [' + b",".join([b"{}"] * 500) + b"]}"
    async with served() as port:
        answer = await call(port, "POST", "/v1/jobs/batch", body, authorization=bearer(token()))
    document = check_problem(answer, 422, "validation-failed")
    assert len(document["errors"]) == 100
    assert document["detail"].startswith("more than 100 fields are at fault, the first: /jobs/0/")


async def test_a_fault_of_ours_is_logged_whole_and_answered_without_a_word_of_it(
    served: Served, token: MakeToken
) -> None:
    class Broken:
        async def job(self, _id: bytes) -> None:
            raise RuntimeError("the secret is hunter2")

    with structlog.testing.capture_logs([logs.scoped]) as lines:
        async with served(reads=cast(Any, Broken())) as port:
            answer = await call(
                port, "GET", f"/v1/jobs/{ID}", authorization=bearer(token()), x_request_id="r1"
            )
    check_problem(answer, 500, "internal-error")
    assert b"hunter2" not in answer.body
    assert [(line["event"], line["request_id"], line["route"]) for line in lines] == [
        ("request_failed", "r1", "/v1/jobs/{id}")
    ]
    assert isinstance(lines[0]["exc_info"], RuntimeError)


class Away:
    """A store that is out of reach; `unknown` as in `StoreUnavailable`."""

    def __init__(self, *, unknown: bool = False) -> None:
        self._unknown = unknown

    async def job(self, _id: bytes) -> None:
        raise StoreUnavailable("refused by 10.0.0.7", unknown=self._unknown)

    async def submit(self, _submission: Submission) -> Accepted:
        raise StoreUnavailable("refused by 10.0.0.7", unknown=self._unknown)


class Commits:
    async def submit(self, submission: Submission) -> Accepted:
        return Accepted(datetime(2026, 11, 18, tzinfo=UTC), [job.id for job in submission.jobs])


class Returns:
    async def wait(self, _id: bytes, _seconds: float) -> None:
        return


@pytest.mark.parametrize("unknown", [False, True])
async def test_while_the_store_is_away_answers_are_503(
    served: Served, token: MakeToken, unknown: bool
) -> None:
    away: Any = Away(unknown=unknown)
    async with served(submitter=away, reads=away) as port:
        auth = bearer(token())
        for answer in (
            await call(port, "POST", "/v1/jobs", b'{"kind": "echo"}', authorization=auth),
            await call(port, "GET", f"/v1/jobs/{ID}", authorization=auth),
        ):
            document = check_problem(answer, 503, "store-unavailable")
            assert answer.headers["retry-after"] == "1"
            assert document.get("outcome") == ("unknown" if unknown else None)
            assert "10.0.0.7" not in document["detail"]


async def test_what_is_accepted_stays_accepted_when_waiting_for_it_fails(
    served: Served, token: MakeToken
) -> None:
    parts: Any = {"submitter": Commits(), "waiters": Returns(), "reads": Away()}
    async with served(**parts) as port:
        answer = await call(
            port,
            "POST",
            "/v1/jobs",
            b'{"kind": "a"}',
            authorization=bearer(token()),
            prefer="wait=5",
        )
    assert (answer.status, answer.json()["state"]) == (201, "ready")


async def test_only_what_has_come_of_bodies_counts_and_it_is_bounded(
    served: Served, token: MakeToken
) -> None:
    limits = Limits(bodies_max_bytes=4000, body_timeout_s=0.5)
    body = b"{" + b" " * 998 + b"}"
    async with served(limits=limits) as port:
        auth = bearer(token())
        announced = [
            asyncio.create_task(
                call(port, "POST", "/v1/jobs", body, content_length="3000", authorization=auth)
            )
            for _ in range(2)
        ]
        await asyncio.sleep(0.1)
        refused = await call(port, "POST", "/v1/jobs", body, authorization=auth)
        document = check_problem(refused, 503, "overloaded")
        assert "yours" in document["detail"]
        assert refused.headers["retry-after"] == "1"
        other = bearer(token(sub="bob"))
        for _ in range(3):
            taken = await call(port, "POST", "/v1/jobs", body, authorization=other)
            check_problem(taken, 422, "validation-failed")
        for slow in announced:
            check_problem(await slow, 408, "request-timeout")
        later = await call(port, "POST", "/v1/jobs", body, authorization=auth)
        check_problem(later, 422, "validation-failed")


async def test_those_who_announce_much_and_send_nothing_take_no_room(
    served: Served, token: MakeToken
) -> None:
    auth = bearer(token())
    head = (
        f"POST /v1/jobs/batch HTTP/1.1\r\nhost: x\r\nauthorization: {auth}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n"
    )
    async with served(limits=Limits()) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in silent:
            writer.write(head.encode())
            await writer.drain()
        answer = await call(port, "POST", "/v1/jobs", b"{}", authorization=auth)
        check_problem(answer, 422, "validation-failed")
        for _, writer in silent:
            await close(writer)


async def test_nothing_is_logged_about_good_and_refused_requests(
    served: Served, token: MakeToken, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as lines:
        async with served() as port:
            await call(port, "GET", "/livez")
            await call(port, "GET", "/v1/queues?x=1", authorization=bearer(token()))
    assert lines == []
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []
