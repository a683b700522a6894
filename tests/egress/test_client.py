"""Calls to real receivers: what is sent, what comes back, and every limit."""

import asyncio
import gzip
import socket
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from itertools import repeat
from pathlib import Path

import pytest
from aiohttp import web

from penstock.egress import Egress, EgressError, EgressRefused
from tests.egress.names import told
from tests.egress.receiver import canary, receiver, saying

LOOPBACK = ["127.0.0.0/8", "::1/128"]


@pytest.fixture
async def http() -> AsyncIterator[Egress]:
    async with Egress(LOOPBACK) as egress:
        yield egress


async def test_method_headers_and_body_arrive_as_they_were_given(http: Egress) -> None:
    async with receiver(saying("ok", 201, {"X-A": "1"})) as there:
        response = await http.request(
            "POST",
            f"{there.url}/a%20b?q=%2F",
            {"X-Job": "7", "Content-Type": "text/x"},
            b"\x00\xff",
        )
    (seen,) = there.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/a%20b?q=%2F", b"\x00\xff")
    assert seen.headers["X-Job"] == "7"
    assert seen.headers["Content-Type"] == "text/x"
    assert seen.headers["User-Agent"].startswith("Penstock/")
    assert (response.status, response.body, response.truncated) == (201, b"ok", False)
    assert response.headers["x-a"] == "1"


async def test_nothing_is_said_of_a_body_that_is_not_there(http: Egress) -> None:
    async with receiver(saying()) as there:
        await http.request("GET", there.url)
    assert "Content-Type" not in there.seen[0].headers
    assert "Authorization" not in there.seen[0].headers


@pytest.mark.parametrize("status", [200, 204, 301, 304, 404, 418, 500, 503])
async def test_any_status_is_an_answer(http: Egress, status: int) -> None:
    async with receiver(saying(status=status)) as there:
        assert (await http.request("GET", there.url)).status == status


async def test_headers_that_come_twice_are_joined(http: Egress) -> None:
    async def twice(request: web.Request) -> web.StreamResponse:
        response = web.Response()
        response.headers.add("X-A", "1")
        response.headers.add("X-A", "2")
        return response

    async with receiver(twice) as there:
        assert (await http.request("GET", there.url)).headers["x-a"] == "1, 2"


async def test_cookies_are_neither_kept_nor_sent(http: Egress) -> None:
    async with receiver(saying(headers={"Set-Cookie": "a=b"})) as there:
        await http.request("GET", there.url)
        await http.request("GET", there.url)
    assert all("Cookie" not in seen.headers for seen in there.seen)


async def test_a_login_of_the_users_netrc_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with Egress(LOOPBACK) as http, receiver(saying()) as there:
        await http.request("GET", there.url)
    assert "Authorization" not in there.seen[0].headers


async def test_a_body_is_cut_at_the_limit_and_no_byte_before(http: Egress) -> None:
    async with receiver(saying(b"x" * 1000)) as there:
        whole = await http.request("GET", there.url, response_max_bytes=1000)
        cut = await http.request("GET", there.url, response_max_bytes=999)
    assert (len(whole.body), whole.truncated) == (1000, False)
    assert (len(cut.body), cut.truncated) == (999, True)


async def test_an_endless_body_ends_at_the_limit(http: Egress) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for block in repeat(b"x" * 65536):
            await response.write(block)
        return response

    async with receiver(endless) as there:
        started = time.monotonic()
        response = await http.request("GET", there.url, timeout_s=10)
    assert len(response.body) == 256 * 1024
    assert response.truncated
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_bomb_does_not_unfold(http: Egress, coding: str) -> None:
    wbits = 31 if coding == "gzip" else 15
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    block = bytes(1024 * 1024)
    bomb = b"".join(packer.compress(block) for _ in range(200)) + packer.flush()
    async with receiver(saying(bomb, headers={"Content-Encoding": coding})) as there:
        tracemalloc.start()
        response = await http.request("GET", there.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(response.body) == 256 * 1024
    assert response.truncated
    assert peak < 4 * 1024 * 1024


def _packed(data: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("GZIP", gzip.compress(b"hello")),
        ("x-gzip", gzip.compress(b"hel") + gzip.compress(b"lo")),
        ("gzip", gzip.compress(b"hello") + b"\0\0\0"),
        ("deflate", _packed(b"hello", 15)),
        ("deflate", _packed(b"hello", -15)),
        ("identity", b"hello"),
        ("br", b"hello"),  # what we didn't ask for stays as it came
    ],
)
async def test_a_packed_body_is_unpacked(http: Egress, coding: str, packed: bytes) -> None:
    async with receiver(saying(packed, headers={"Content-Encoding": coding})) as there:
        assert (await http.request("GET", there.url)).body == b"hello"


async def test_a_body_that_is_packed_badly_is_a_failure_for_now(http: Egress) -> None:
    async with receiver(saying(b"\x1f\x8bnonsense", headers={"Content-Encoding": "gzip"})) as there:
        with pytest.raises(EgressError, match="compression"):
            await http.request("GET", there.url)


async def test_a_silent_server_is_given_up_in_time(http: Egress) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with receiver(silent) as there:
        started = time.monotonic()
        with pytest.raises(EgressError, match="in time"):
            await http.request("GET", there.url, timeout_s=0.2)
        assert time.monotonic() - started < 2


async def test_a_body_that_drips_is_given_up_in_time(http: Egress) -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.02)

    async with receiver(dripping) as there:
        with pytest.raises(EgressError, match="in time"):
            await http.request("GET", there.url, timeout_s=0.3)


@pytest.mark.parametrize("timeout_s", [0.0, -5.0])
async def test_no_time_left_means_no_call_and_not_no_limit(http: Egress, timeout_s: float) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with receiver(slow) as there:
        with pytest.raises(EgressError):
            await asyncio.wait_for(http.request("GET", there.url, timeout_s=timeout_s), 2)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
    ],
)
async def test_a_broken_answer_is_a_failure_for_now_that_tells_no_url(
    http: Egress, reply: bytes
) -> None:
    async with canary(reply) as broken:
        with pytest.raises(EgressError) as failed:
            await http.request("GET", f"http://127.0.0.1:{broken.port}/?t=sesame", timeout_s=5)
    assert "sesame" not in str(failed.value)


async def test_a_closed_port_and_an_unknown_name_are_failures_for_now(
    http: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(name: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    told(monkeypatch, nobody)
    async with canary() as gone:
        pass
    for url in (f"http://127.0.0.1:{gone.port}/", "http://nobody.test/"):
        with pytest.raises(EgressError):
            await http.request("GET", url, timeout_s=5)


async def test_a_server_whose_certificate_nobody_signed_is_not_talked_to(http: Egress) -> None:
    async with receiver(saying("plain")) as there:
        with pytest.raises(EgressError):
            await http.request("GET", there.url.replace("http:", "https:"), timeout_s=5)
    assert there.seen == []


async def test_slow_names_hold_up_neither_the_loop_nor_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(name: str) -> list[str]:
        time.sleep(1)
        return ["127.0.0.1"]

    told(monkeypatch, slow)
    async with Egress(LOOPBACK, connect_timeout_s=0.2) as http:
        started = time.monotonic()
        calls = [http.request("GET", f"http://slow{n}.test/") for n in range(40)]
        slow_ones = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.to_thread(int)
        assert time.monotonic() - started < 0.15
        failures = await slow_ones
        assert time.monotonic() - started < 0.9
    assert all(isinstance(failure, EgressError) for failure in failures)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("CONNECT", {}),
        ("TRACE", {}),
        ("get", {}),
        ("GET\r\nX: y", {}),
        ("GET", {"Host": "internal"}),
        ("GET", {"Content-Length": "5"}),
        ("GET", {"X-A": "a\r\nX-B: b"}),
        ("GET", {"X-A\r\nX-B": "b"}),
    ],
)
async def test_a_request_that_would_break_out_is_refused(
    http: Egress, method: str, headers: dict[str, str]
) -> None:
    async with receiver(saying()) as there:
        with pytest.raises(EgressRefused):
            await http.request(method, there.url, headers)
    assert there.seen == []


async def test_a_connection_is_used_again_and_a_cut_one_is_not() -> None:
    ports: list[int] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.append(request.transport.get_extra_info("peername")[1])
        return web.Response(body=b"x" * 100_000)

    async with Egress(LOOPBACK) as http, receiver(answer) as there:
        await http.request("GET", there.url)
        await http.request("GET", there.url, response_max_bytes=10)
        await http.request("GET", there.url)
    assert ports[0] == ports[1] != ports[2]


async def test_bytes_in_a_header_that_are_no_text_can_still_be_stored(http: Egress) -> None:
    reply = b"HTTP/1.1 200 OK\r\nX-A: \xff\xfe\r\nContent-Length: 0\r\n\r\n"
    async with canary(reply) as odd:
        response = await http.request("GET", f"http://127.0.0.1:{odd.port}/")
    response.headers["x-a"].encode()


async def test_an_egress_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError):
        await Egress(LOOPBACK).request("GET", "http://127.0.0.1:8080/")


def test_networks_that_are_none_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="host bits"):
        Egress(["10.0.0.1/8"])
