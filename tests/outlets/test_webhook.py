"""Webhooks to real receivers, good and bad: what they get, and what comes of the message."""

import asyncio
import base64
import gzip
import secrets
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from penstock.domain import ids
from penstock.domain.effect import Channel, Delivery, Fate, Message
from penstock.egress import Egress
from penstock.outlets import Webhook
from tests.egress.receiver import Answer, Seen, canary, receiver, saying
from tests.egress.test_ssrf import HOSTS
from tests.outlets import messages
from tests.support.ports import free_port

TIMEOUT_S = 0.6
MIB = 1024 * 1024


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


SECRET = new_secret()


def message(url: str) -> Message:
    return messages.message(Channel.WEBHOOK, url)


@pytest.fixture
async def http() -> AsyncIterator[Egress]:
    async with Egress(["127.0.0.0/8"], connections_max=512) as egress:
        yield egress


@pytest.fixture
def outlet(http: Egress) -> Webhook:
    return Webhook(http, [SECRET], TIMEOUT_S)


async def told(outlet: Webhook, url: str) -> Delivery:
    (delivery,) = await outlet.deliver([message(url)])
    return delivery


def headers_of(seen: Seen) -> dict[str, str]:
    return dict(seen.headers)


async def test_the_body_is_a_cloud_event_with_the_job_as_its_data(outlet: Webhook) -> None:
    async with receiver(saying(status=204)) as there:
        sent = message(there.url + "/hook?a=%2F")
        assert await outlet.deliver([sent]) == [Delivery(Fate.DELIVERED)]
    (seen,) = there.seen
    assert (seen.method, seen.path) == ("POST", "/hook?a=%2F")
    assert seen.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert seen.headers["traceparent"] == sent.traceparent
    assert sent.effect.job is not None
    assert orjson.loads(seen.body) == {
        "specversion": "1.0",
        "id": sent.effect.dedupe,
        "source": "/penstock",
        "type": "penstock.job.dead.v1",
        "subject": ids.text(sent.effect.job),
        "time": "2026-11-18T11:06:40.000Z",
        "traceparent": sent.traceparent,
        "datacontenttype": "application/json",
        "data": messages.JOB,
    }


async def test_the_id_is_the_same_at_each_try(outlet: Webhook) -> None:
    async with receiver(saying(status=500)) as there:
        sent = message(there.url)
        await outlet.deliver([sent])
        await outlet.deliver([sent])
    assert [seen.headers["webhook-id"] for seen in there.seen] == [sent.effect.dedupe] * 2


async def test_the_library_of_standard_webhooks_verifies_it(outlet: Webhook) -> None:
    async with receiver(saying()) as there:
        await told(outlet, there.url)
    (seen,) = there.seen
    headers = headers_of(seen)
    verified = Verifier(SECRET).verify(seen.body, headers)
    assert verified["data"]["kind"] == "report"
    for altered, body in (
        (headers, seen.body.replace(b"report", b"retort")),
        ({**headers, "webhook-id": "another"}, seen.body),
        ({**headers, "webhook-timestamp": str(int(time.time()) - 360)}, seen.body),
        ({**headers, "webhook-timestamp": str(int(time.time()) + 2)}, seen.body),
    ):
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(body, altered)
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(seen.body, headers)


async def test_while_secrets_rotate_either_one_verifies(http: Egress) -> None:
    new, gone = new_secret(), new_secret()
    async with receiver(saying()) as there:
        await told(Webhook(http, [new, SECRET], TIMEOUT_S), there.url)
    (seen,) = there.seen
    assert seen.headers["webhook-signature"].count("v1,") == 2
    for secret in (new, SECRET):
        Verifier(secret).verify(seen.body, headers_of(seen))
    with pytest.raises(WebhookVerificationError):
        Verifier(gone).verify(seen.body, headers_of(seen))


async def test_a_signature_is_made_anew_at_each_try(outlet: Webhook) -> None:
    async with receiver(saying()) as there:
        sent = message(there.url)
        await outlet.deliver([sent])
    (seen,) = there.seen
    stamp = datetime.fromtimestamp(int(seen.headers["webhook-timestamp"]), UTC)
    assert abs((datetime.now(UTC) - stamp).total_seconds()) < 5


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_delivered(outlet: Webhook, status: int) -> None:
    async with receiver(saying(status=status)) as there:
        assert (await told(outlet, there.url)).fate is Fate.DELIVERED


@pytest.mark.parametrize(
    "status", [300, 301, 302, 304, 307, 308, 400, 401, 404, 408, 425, 429, 500, 502, 503]
)
async def test_other_answers_are_tried_again(outlet: Webhook, status: int) -> None:
    async with receiver(saying(status=status)) as there:
        answer = await told(outlet, there.url)
    assert (answer.fate, answer.error) == (Fate.LATER, f"the endpoint answered {status}")


async def test_410_says_that_the_endpoint_is_gone(outlet: Webhook) -> None:
    async with receiver(saying(status=410)) as there:
        assert (await told(outlet, there.url)).fate is Fate.GONE


@pytest.mark.parametrize(("value", "after_s"), [("7", 7.0), ("86400", 3600.0), ("soon", None)])
async def test_a_receiver_can_say_when(outlet: Webhook, value: str, after_s: float | None) -> None:
    async with receiver(saying(status=429, headers={"Retry-After": value})) as there:
        answer = await told(outlet, there.url)
    assert (answer.fate, answer.after_s) == (Fate.LATER, after_s)


async def test_a_loop_of_redirects_is_not_walked(outlet: Webhook) -> None:
    async with receiver(saying(status=302, headers={"Location": "/"})) as there:
        assert (await told(outlet, there.url)).fate is Fate.LATER
    assert len(there.seen) == 1


async def test_a_redirect_to_a_clouds_metadata_is_not_followed(outlet: Webhook) -> None:
    target = {"Location": "http://169.254.169.254/latest/meta-data/"}
    async with receiver(saying(status=302, headers=target)) as there:
        answer = await told(outlet, there.url)
    assert answer == Delivery(Fate.LATER, "the endpoint answered 302")


def dripping(each: bytes, pause_s: float, times: int) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(times):
            await response.write(each)
            await asyncio.sleep(pause_s)
        return response

    return answer


async def test_a_receiver_that_hangs_is_left(outlet: Webhook) -> None:
    async with receiver(dripping(b"", 5, 1)) as there:
        began = time.monotonic()
        answer = await told(outlet, there.url)
    assert answer.fate is Fate.LATER
    assert time.monotonic() - began < TIMEOUT_S + 1


async def test_a_receiver_that_drips_is_left(outlet: Webhook) -> None:
    async with receiver(dripping(b"x", 0.1, 100)) as there:
        began = time.monotonic()
        answer = await told(outlet, there.url)
    assert answer.fate is Fate.LATER
    assert time.monotonic() - began < TIMEOUT_S + 1


@asynccontextmanager
async def raw(reply: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that speaks no HTTP of its own."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await reply(writer)
        except OSError:
            pass  # it was hung up on
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_of_ten_gigabytes_64_kib_are_read(http: Egress) -> None:
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
        while sent < 64 * MIB:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    outlet = Webhook(http, [SECRET], 5)
    async with raw(flood) as url:
        tracemalloc.start()
        answer = await told(outlet, url)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert answer.fate is Fate.DELIVERED, "it said 2xx"
    assert sent < 32 * MIB, "what the kernels' buffers hold"
    assert peak < 8 * MIB


async def test_a_bomb_does_not_unfold(outlet: Webhook) -> None:
    bomb = gzip.compress(b"\x00" * (256 * MIB))
    headers = {"Content-Encoding": "gzip"}
    async with receiver(saying(bomb, headers=headers)) as there:
        tracemalloc.start()
        answer = await told(outlet, there.url)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert answer.fate is Fate.DELIVERED
    assert peak < 4 * MIB


async def test_a_connection_that_is_reset_is_tried_again(outlet: Webhook) -> None:
    async def reset(writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with raw(reset) as url:
        assert (await told(outlet, url)).fate is Fate.LATER


async def test_what_is_no_http_and_bad_tls_are_tried_again(outlet: Webhook) -> None:
    async def nonsense(writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")

    async with raw(nonsense) as url:
        assert (await told(outlet, url)).fate is Fate.LATER
    async with receiver(saying()) as there:
        plain = there.url.replace("http://", "https://")
        assert (await told(outlet, plain)).fate is Fate.LATER


async def test_nobody_there_is_tried_again(outlet: Webhook) -> None:
    assert (await told(outlet, f"http://127.0.0.1:{free_port()}/")).fate is Fate.LATER


async def test_no_url_reaches_this_machine_and_none_is_tried_again() -> None:
    async with canary(host="0.0.0.0") as bird, Egress() as http:
        outlet = Webhook(http, [SECRET], 2)
        for host in HOSTS:
            for scheme in ("http", "https"):
                answer = await told(outlet, f"{scheme}://{host}:{bird.port}/")
                assert answer.fate is Fate.NEVER, host
        assert bird.knocks == 0
    assert len(HOSTS) >= 60


async def test_four_calls_at_once_go_to_one_endpoint(http: Egress) -> None:
    under_way = most = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        return web.Response()

    outlet = Webhook(http, [SECRET], 5)
    async with receiver(answer) as there:
        answers = await outlet.deliver([message(there.url) for _ in range(outlet.at_once)])
    assert {one.fate for one in answers} == {Fate.DELIVERED}
    assert most == 4
