"""The kind `http` against real receivers: what they get, what becomes of their answers."""

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from aiohttp import web

from penstock.domain.attempt import Ending, Failure, Outcome
from penstock.egress import Egress
from penstock.handlers import Registry
from tests.egress.receiver import canary, receiver, saying
from tests.handlers.factory import JOB_ID, STARTED, context, handler_of, run

HTTP = handler_of("http")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def http() -> AsyncIterator[Egress]:
    async with Egress(["127.0.0.0/8"]) as egress:
        yield egress


async def call(http: Egress, url: str, remaining_s: float = 30.0, **payload: Any) -> Ending:
    return await run(HTTP, {"url": url, **payload}, context(http=http, remaining_s=remaining_s))


def result_of(ending: Ending) -> dict[str, Any]:
    assert ending.outcome is Outcome.SUCCEEDED, ending.failure
    assert ending.result is not None
    result: dict[str, Any] = orjson.loads(ending.result)
    return result


def failure_in(ending: Ending) -> Failure:
    assert ending.outcome is Outcome.FAILED
    assert ending.failure is not None
    return ending.failure


async def test_the_answer_is_the_result(http: Egress) -> None:
    async with receiver(saying('{"a": [1, null]}', 201, {**JSON, "X-A": "b"})) as there:
        result = result_of(await call(http, there.url))
    assert result["status"] == 201
    assert result["body"] == {"a": [1, None]}
    assert result["headers"]["x-a"] == "b"
    assert "truncated" not in result


async def test_the_receiver_learns_which_attempt_of_which_job_this_is(http: Egress) -> None:
    async with receiver(saying()) as there:
        await call(http, there.url)
    headers = there.seen[0].headers
    assert headers["Idempotency-Key"] == JOB_ID
    assert headers["Penstock-Attempt"] == "3"
    assert headers["traceparent"] == STARTED.traceparent
    assert there.seen[0].method == "GET"
    assert there.seen[0].body == b""


async def test_headers_of_the_payload_win_over_ours_but_the_attempt(http: Egress) -> None:
    own = {"idempotency-key": "mine", "TRACEPARENT": "t", "content-type": "text/csv", "X-A": "ü"}
    async with receiver(saying()) as there:
        await call(http, there.url, headers=own, body="a,b", method="PUT")
    headers = there.seen[0].headers
    assert [headers[name] for name in own] == list(own.values())
    assert headers["Penstock-Attempt"] == "3"


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ("täxt", "täxt".encode(), "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        ({"a": [1, "ü"]}, '{"a":[1,"ü"]}'.encode(), "application/json"),
        ([], b"[]", "application/json"),
        (0, b"0", "application/json"),
        (False, b"false", "application/json"),
        (None, b"", None),
    ],
)
async def test_a_text_is_sent_as_it_is_and_all_else_as_json(
    http: Egress, body: Any, sent: bytes, content_type: str | None
) -> None:
    async with receiver(saying()) as there:
        await call(http, there.url, method="post", body=body)
    assert there.seen[0].body == sent
    assert there.seen[0].headers.get("Content-Type") == content_type


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226])
async def test_2xx_succeeds(http: Egress, status: int) -> None:
    async with receiver(saying(status=status)) as there:
        assert result_of(await call(http, there.url))["status"] == status


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_what_may_pass_is_tried_again(http: Egress, status: int) -> None:
    async with receiver(saying("busy", status)) as there:
        ending = await call(http, there.url)
    assert failure_in(ending).type == f"http-{status}"
    assert failure_in(ending).details == {"status": status, "body": "busy"}
    assert ending.retryable
    assert ending.retry_after_s is None


@pytest.mark.parametrize("status", [301, 302, 304, 307, 400, 401, 403, 404, 409, 410, 422, 451])
async def test_what_will_not_pass_is_final(http: Egress, status: int) -> None:
    async with receiver(saying(status=status, headers={"Retry-After": "9"})) as there:
        ending = await call(http, there.url)
    assert failure_in(ending).type == f"http-{status}"
    assert not ending.retryable


@pytest.mark.parametrize(
    ("expected", "status", "succeeds", "retryable"),
    [
        ([404], 404, True, True),
        ([404], 200, False, False),
        ([200, 302], 302, True, True),
        ([200], 503, False, True),
        ([503], 503, True, True),
        ([200.0], 200, True, True),
    ],
)
async def test_expected_statuses_replace_2xx(
    http: Egress, expected: list[int], status: int, succeeds: bool, retryable: bool
) -> None:
    async with receiver(saying(status=status)) as there:
        ending = await call(http, there.url, expect_status=expected)
    assert (ending.outcome is Outcome.SUCCEEDED) is succeeds
    assert ending.retryable is retryable


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured_and_capped(http: Egress, status: int) -> None:
    async with receiver(saying(status=status, headers={"Retry-After": "17"})) as there:
        assert (await call(http, there.url)).retry_after_s == 17
    async with receiver(saying(status=status, headers={"Retry-After": "999999"})) as there:
        assert (await call(http, there.url)).retry_after_s == 3600
    in_a_minute = formatdate(time.time() + 60, usegmt=True)
    async with receiver(saying(status=status, headers={"Retry-After": in_a_minute})) as there:
        wait = (await call(http, there.url)).retry_after_s
        assert wait is not None
        assert 55 < wait <= 61


async def test_connection_errors_are_tried_again(http: Egress) -> None:
    async with canary() as rude:
        ending = await call(http, f"http://127.0.0.1:{rude.port}/")
    closed = await call(http, f"http://127.0.0.1:{rude.port}/")
    for each in (ending, closed):
        assert failure_in(each).type == "egress-failed"
        assert each.retryable


async def test_a_refused_address_is_final_and_nobody_is_called() -> None:
    async with canary() as bird, Egress() as http:
        for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"):
            ending = await call(http, f"http://{host}:{bird.port}/")
            assert failure_in(ending).type == "egress-refused"
            assert not ending.retryable
        assert bird.knocks == 0


async def test_the_call_ends_with_the_jobs_time(http: Egress) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with receiver(slow) as there:
        for remaining_s in (0.2, 0.0, -1.0):
            started = time.monotonic()
            ending = await call(http, there.url, remaining_s=remaining_s)
            assert time.monotonic() - started < 2
            assert failure_in(ending).type == "egress-failed"


@pytest.mark.parametrize(
    ("body", "content_type", "wanted"),
    [
        (b'{"a": 1}', "application/json", {"a": 1}),
        (b'{"a": 1}', "application/problem+json; charset=utf-8", {"a": 1}),
        (b"\xef\xbb\xbf[1]", "application/json", [1]),
        ('"ü"'.encode("utf-16"), "application/json; charset=utf-16", "ü"),
        (b'{"a": 1}', "text/plain", '{"a": 1}'),
        (b"7", "text/plain", "7"),
        (b"{broken", "application/json", "{broken"),
        (b"", "application/json", ""),
        (b'["\\u0000"]', "application/json", '["\\u0000"]'),
        (b"[9007199254740993]", "application/json", "[9007199254740993]"),
        (b"[123456789012345678901234]", "application/json", "[123456789012345678901234]"),
        (b'["123456789012345678901234"]', "application/json", ["123456789012345678901234"]),
        (b"[0.1234567890123456789]", "application/json", [0.12345678901234568]),
        (b"[NaN]", "application/json", "[NaN]"),
        (b"[" * 31 + b"]" * 31, "application/json", orjson.loads(b"[" * 31 + b"]" * 31)),
        (b"[" * 32 + b"]" * 32, "application/json", "[" * 32 + "]" * 32),
        (b"[" * 5000 + b"]" * 5000, "application/json", "[" * 5000 + "]" * 5000),
        ("Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1", "Grüße"),
        ("Grüße".encode("latin-1"), "text/plain", "Gr\ufffd\ufffde"),
        (b"a\0b\x1bc\r\n\td", "text/plain", "a\ufffdb\ufffdc\r\n\td"),
        (b"\x89PNG\r\n\x1a\n\0", "image/png", "\ufffdPNG\r\n\ufffd\n\ufffd"),
    ],
)
async def test_a_body_is_parsed_if_it_is_json_that_can_be_kept(
    http: Egress, body: bytes, content_type: str, wanted: Any
) -> None:
    async with receiver(saying(body, headers={"Content-Type": content_type})) as there:
        assert result_of(await call(http, there.url))["body"] == wanted


async def test_a_long_body_is_cut_and_says_so(http: Egress) -> None:
    async with receiver(saying(b'"' + b"x" * 300_000 + b'"', headers=JSON)) as there:
        result = result_of(await call(http, there.url))
    assert result["truncated"] is True
    assert result["body"] == '"' + "x" * (256 * 1024 - 1)


async def test_the_worst_body_still_fits_a_result(http: Egress) -> None:
    async with receiver(saying(b"\xff\x00" * 200_000)) as there:
        assert result_of(await call(http, there.url))["truncated"] is True


async def test_a_redirect_is_not_followed(http: Egress) -> None:
    async with canary() as bird:
        target = {"Location": f"http://127.0.0.1:{bird.port}/"}
        async with receiver(saying(status=302, headers=target)) as there:
            ending = await call(http, there.url)
            expected = await call(http, there.url, expect_status=[302])
        assert not ending.retryable
        assert result_of(expected)["headers"]["location"] == target["Location"]
        assert bird.knocks == 0


URL = "https://example.com/"


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        (None, ""),
        ([], ""),
        ({}, "/url"),
        ({"url": 5}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": "ftp://example.com/"}, "/url"),
        ({"url": "http://user:pass@example.com/"}, "/url"),
        ({"url": "http://127.1/"}, "/url"),
        ({"url": "http://example.com:6379/"}, "/url"),
        ({"url": "http://example.com/\r\nX: y"}, "/url"),
        ({"url": URL, "uri": 1}, "/uri"),
        ({"url": URL, "method": "TRACE"}, "/method"),
        ({"url": URL, "method": "CONNECT"}, "/method"),
        ({"url": URL, "method": 1}, "/method"),
        ({"url": URL, "method": None}, "/method"),
        ({"url": URL, "headers": []}, "/headers"),
        ({"url": URL, "headers": {"X-A": 1}}, "/headers/X-A"),
        ({"url": URL, "headers": {"X-A": "a\r\nb"}}, "/headers/X-A"),
        ({"url": URL, "headers": {"Host": "x"}}, "/headers/Host"),
        ({"url": URL, "headers": {"content-length": "1"}}, "/headers/content-length"),
        ({"url": URL, "headers": {"Transfer-Encoding": "x"}}, "/headers/Transfer-Encoding"),
        ({"url": URL, "headers": {"Connection": "close"}}, "/headers/Connection"),
        ({"url": URL, "headers": {"Penstock-Attempt": "1"}}, "/headers/Penstock-Attempt"),
        ({"url": URL, "headers": {"a/b": "1"}}, "/headers/a~1b"),
        ({"url": URL, "headers": {f"X-{n}": "" for n in range(65)}}, "/headers"),
        ({"url": URL, "expect_status": 200}, "/expect_status"),
        ({"url": URL, "expect_status": []}, "/expect_status"),
        ({"url": URL, "expect_status": [200, 99]}, "/expect_status/1"),
        ({"url": URL, "expect_status": [200, "201"]}, "/expect_status/1"),
        ({"url": URL, "expect_status": [True]}, "/expect_status/0"),
        ({"url": URL, "expect_status": [200.5]}, "/expect_status/0"),
    ],
)
def test_a_bad_payload_is_pointed_at_at_the_door(payload: Any, pointer: str) -> None:
    told = Registry.load([]).payload_errors("http", payload)
    assert [where for where, _ in told] == [pointer]


def test_a_good_payload_passes_the_door() -> None:
    full = {
        "url": URL,
        "method": "Post",
        "headers": {"Authorization": "Bearer x"},
        "body": {"any": [1]},
        "expect_status": [200, 404.0],
    }
    assert Registry.load([]).payload_errors("http", full) == []
    assert Registry.load([]).payload_errors("http", {"url": URL, "expect_status": None}) == []
