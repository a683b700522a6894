"""The tables of bad input, row by row, over a real connection: reliability.md, 4.1."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import structlog

from penstock.api.door import Limits
from tests.api.conftest import Served
from tests.api.wire import Answer, call, close, raw, read_answer
from tests.support.waiting import eventually

MakeToken = Callable[..., str]
POST = "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
NUL = r"\u0000"


def deep(levels: int) -> bytes:
    return b'{"kind":"a","payload":' + b"[" * levels + b"]" * levels + b"}"


def job(**fields: str) -> bytes:
    """A job with these fields, given as JSON."""
    members = {"kind": '"a"', **fields}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode()


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "not JSON": (b"kind=a", 400),
    "half of it": (b'{"kind":"a"', 400),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400),
    "UTF-16": ('{"kind":"a"}'.encode("utf-16"), 400),
    "bad UTF-8": (b'{"kind":"\xff"}', 400),
    "overlong UTF-8": (b'{"kind":"\xc0\xaf"}', 400),
    "a surrogate in UTF-8": (b'{"kind":"\xed\xa0\x80"}', 400),
    "NaN": (job(payload="NaN"), 400),
    "Infinity": (job(payload="-Infinity"), 400),
    "1e400": (job(payload="1e400"), 400),
    "a lone surrogate": (job(payload=r'"\ud800"'), 400),
    "a control character": (job(payload='"\x01"'), 400),
    "something behind it": (b"{} {}", 400),
    "single quotes": (b"{'kind':'a'}", 400),
    "a comment": (b'{"kind":"a"} // x', 400),
    "a list": (b"[]", 422),
    "a string": (b'"a"', 422),
    "a number": (b"1", 422),
    "null": (b"null", 422),
    "33 levels": (deep(33), 422),
    "1,000 levels": (deep(500), 422),
    "a NUL in a value": (job(payload=f'"x{NUL}"'), 422),
    "a NUL in a name": (job(payload=f'{{"{NUL}":1}}'), 422),
    "a NUL in the queue": (job(queue=f'"{NUL}"'), 422),
    "a NUL in a tag": (job(tags=f'["{NUL}"]'), 422),
    "a NUL in a field's name": (job(**{NUL: "1"}), 422),
    "2^53 + 1": (job(payload="9007199254740993"), 422),
    "30 digits": (job(payload="1" * 30), 422),
    "1,500 digits": (job(payload="-" + "1" * 1500), 422),
    "30 digits as a priority": (job(priority="1" * 30), 422),
    "a number for the kind": (job(kind="5"), 422),
    "true for a number": (job(priority="true"), 422),
    "a string for a number": (job(timeout_s='"5"'), 422),
    "an unknown field": (job(x="1"), 422),
    "a field in capitals": (job(Priority="1"), 422),
    **{
        f"the server's own {name}": (job(**{name: "1"}), 422)
        for name in (
            *("id", "state", "attempt", "failures", "created_by", "created_at", "worker"),
            *("result", "error", "workflow_id", "cancel_reason", "traceparent", "tenant_id"),
        )
    },
    **{
        f"max_attempts {it}": (job(max_attempts=it), 422) for it in ("0", "-1", "1e9", "101", "1.5")
    },
    **{f"priority {it}": (job(priority=it), 422) for it in ("-1", "10", "4.5", "null")},
    **{f"timeout_s {it}": (job(timeout_s=it), 422) for it in ("0", "-1", "1e12", "86401")},
    **{f"delay_s {it}": (job(delay_s=it), 422) for it in ("-1", "1e12", '"1"')},
    **{
        f"run_at {it}": (job(run_at=f'"{it}"'), 422)
        for it in (
            *("9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2027-01-01T00:00:00", "infinity"),
            *("2027-13-01T00:00:00Z", "2027-02-29T00:00:00Z", "now", ""),
        )
    },
    **{
        f"{field} {it!r}": (job(**{field: f'"{it}"'}), 422)
        for field in ("queue", "kind")
        for it in (
            *("", "a" * 64, "a" * 129, "a:b{c}", "../x", "*", r"a\r\nb", r"a\n", "\u202ea"),
            *("a\u200bb", "💥", "A", " a", "a/b", "-a", "é"),
        )
    },
}


@pytest.mark.parametrize("row", BODIES)
async def test_a_bad_submission_is_refused(served: Served, token: MakeToken, row: str) -> None:
    body, status = BODIES[row]
    async with served() as port:
        auth = f"Bearer {token()}"
        answer = await call(port, "POST", "/v1/jobs", body, authorization=auth)
        check(answer, status)
        if status == 422 and body.startswith(b"{"):
            batch = b'{"jobs":[{"kind":"a"},' + body + b"]}"
            many = await call(port, "POST", "/v1/jobs/batch", batch, authorization=auth)
            check(many, status)
            pointers = {one["pointer"][:7] for one in many.json()["errors"]}
            assert pointers == ({""} if row == "1,500 digits" else {"/jobs/1"})


def check(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.headers["x-request-id"]
    assert "Traceback" not in answer.body.decode()


@pytest.mark.parametrize(("levels", "status"), [(2000, 400), (30_000, 400), (100_000, 422)])
async def test_a_tower_of_lists_is_refused_by_its_height_or_its_weight(
    served: Served, token: MakeToken, levels: int, status: int
) -> None:
    """1,024 levels are more than a parser takes, 50,000 lists more than we look at."""
    async with served(limits=Limits()) as port:
        auth = f"Bearer {token()}"
        for path, body in (
            ("/v1/jobs", deep(levels)),
            ("/v1/jobs/batch", b'{"jobs":[' + deep(levels) + b"]}"),
        ):
            check(await call(port, "POST", path, body, authorization=auth), status)


async def test_a_name_of_half_a_megabyte_is_not_repeated(served: Served, token: MakeToken) -> None:
    long = "x" * 500_000
    bodies = (
        job(**{long: "1"}),
        job(kind='"picky"', payload=f'{{"{long}":1}}'),
        job(queue=f'"{long}"'),
    )
    async with served(limits=Limits()) as port:
        for body in bodies:
            answer = await call(port, "POST", "/v1/jobs", body, authorization=f"Bearer {token()}")
            check(answer, 422)
            assert len(answer.body) < 1000


FRAMING: dict[str, tuple[str, int]] = {
    "both lengths": (
        "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        400,
    ),
    "both, the other way": ("transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}", 400),
    "two lengths": ("content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
    "two equal lengths": ("content-length: 2\r\ncontent-length: 2\r\n\r\n{}", 400),
    "a negative length": ("content-length: -2\r\n\r\n{}", 400),
    "a length with a sign": ("content-length: +2\r\n\r\n{}", 400),
    "a length in hex": ("content-length: 0x2\r\n\r\n{}", 400),
    "a length of 2^64": ("content-length: 18446744073709551616\r\n\r\n{}", 400),
    "a huge length": ("content-length: 9999999999999999\r\n\r\n{}", 413),
    "a chunk of no size": ("transfer-encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk of a strange size": ("transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk of a negative size": ("transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk longer than its size": ("transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400),
    "a space before the colon": ("content-length : 2\r\n\r\n{}", 400),
    "a folded header": ("content-length: 2\r\nx: a\r\n b\r\n\r\n{}", 400),
    "a NUL in a header": ("content-length: 2\r\nx: a\0b\r\n\r\n{}", 400),
    "a CR in a header": ("content-length: 2\r\nx: a\rb\r\n\r\n{}", 400),
    "two hosts": ("host: y\r\ncontent-length: 2\r\n\r\n{}", 400),
}


@pytest.mark.parametrize("row", FRAMING)
async def test_a_body_in_a_bad_frame_is_refused_and_what_follows_is_not_read(
    served: Served, token: MakeToken, row: str
) -> None:
    frame, status = FRAMING[row]
    sent = f"{POST}authorization: Bearer {token()}\r\n{frame}".encode()
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent + LIVEZ)
        check(await read_answer(reader), status)
        if status == 400:
            async with asyncio.timeout(2):
                assert await reader.read() == b""
        await close(writer)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET // HTTP/1.1", 404),
        ("GET //livez HTTP/1.1", 404),
        ("GET /./livez HTTP/1.1", 404),
        ("GET /v1/../livez HTTP/1.1", 404),
        ("GET /v1/%2e%2e/livez HTTP/1.1", 404),
        ("GET /%6civez HTTP/1.1", 200),
        ("GET /livez%2f HTTP/1.1", 404),
        ("GET /livez/ HTTP/1.1", 404),
        ("GET /livez%00 HTTP/1.1", 400),
        ("GET /livez?x=%00 HTTP/1.1", 400),
        ("GET /%ff HTTP/1.1", 400),
        ("GET /%c0%af HTTP/1.1", 400),
        ("GET /%zz HTTP/1.1", 404),
        ("GET /livez# HTTP/1.1", 404),
        ("GET \\livez HTTP/1.1", 400),
        ("GET http://x/livez HTTP/1.1", 400),
        ("GET http://evil.test/livez HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("GET  /livez HTTP/1.1", 200),  # RFC 9112, 3: who reads may be lenient here
        ("GET /livez  HTTP/1.1", 200),
        ("GET /li vez HTTP/1.1", 400),
        ("HEAD /livez HTTP/1.1", 405),
        ("OPTIONS /livez HTTP/1.1", 405),
        ("TRACE /livez HTTP/1.1", 405),
    ],
)
async def test_odd_paths_lead_nowhere(served: Served, line: str, status: int) -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{line}\r\nhost: x\r\n\r\n".encode())
        answer = await read_answer(reader, with_body=not line.startswith("HEAD"))
        assert answer.status == status
        await close(writer)


async def test_hosts_origins_and_overrides_change_nothing(served: Served) -> None:
    odd = {
        "origin": "https://evil.test",
        "x_http_method_override": "DELETE",
        "x_forwarded_host": "evil.test",
        "forwarded": "host=evil.test",
        "access_control_request_method": "POST",
    }
    async with served() as port:
        answer = await call(port, "GET", "/livez", None, **odd)
        refused = await call(port, "OPTIONS", "/v1/jobs", None, **odd)
        old = await raw(port, b"GET /livez HTTP/1.0\r\n\r\n")
    assert (answer.status, refused.status, old.status) == (200, 405, 200)
    for one in (answer, refused, old):
        assert not [name for name in one.headers if name.startswith("access-control")]
        assert "evil" not in repr(one)
        assert one.headers["cache-control"] == "no-store"
        assert one.headers["x-content-type-options"] == "nosniff"


async def test_a_request_without_a_host_is_400(served: Served) -> None:
    async with served() as port:
        check(await raw(port, b"GET /livez HTTP/1.1\r\n\r\n"), 400)


async def test_who_leaves_in_the_middle_leaves_nothing_behind(
    served: Served, token: MakeToken
) -> None:
    head = f"{POST}authorization: Bearer {token()}\r\ncontent-length: 1000\r\n\r\n"
    with structlog.testing.capture_logs() as lines:
        async with served(limits=Limits(connections_max=5)) as port:
            for part in (b"", b"PO", POST.encode(), head.encode(), head.encode() + b'{"kind"'):
                for abort in (True, False):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                    if abort:
                        writer.transport.abort()
                    await close(writer)

            async def is_served() -> bool:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    return (await raw(port, LIVEZ)).status == 200
                return False

            await eventually(is_served, "all of them are gone")
    assert lines == []
