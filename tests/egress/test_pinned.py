"""What is fetched from a URL that the operator pinned, and what never is."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from penstock.domain.errors import KeysUnavailable
from penstock.egress import fetched, pinned
from tests.egress.receiver import canary, receiver, saying
from tests.outlets.test_mail import certificate

__all__ = ["certificate"]  # the fixture


async def got(url: str, bytes_max: int = 1000, timeout_s: float = 5.0) -> bytes:
    async with pinned(1.0) as http:
        return await fetched(http, url, bytes_max, timeout_s)


async def test_a_document_in_the_operators_own_network_is_fetched() -> None:
    async with receiver(saying(b'{"keys": []}')) as here:
        assert await got(f"{here.url}/jwks?x=%2F") == b'{"keys": []}'
    (seen,) = here.seen
    assert (seen.method, seen.path) == ("GET", "/jwks?x=%2F")
    assert "Authorization" not in seen.headers


@pytest.mark.parametrize("status", [201, 204, 404, 500])
async def test_another_status_is_no_document(status: int) -> None:
    async with receiver(saying(b"{}" if status != 204 else b"", status)) as here:
        with pytest.raises(KeysUnavailable, match=f"answered {status}"):
            await got(here.url)


async def test_a_redirect_is_not_followed() -> None:
    async with canary() as other:
        to = {"Location": f"http://127.0.0.1:{other.port}/"}
        async with receiver(saying(b"", 302, to)) as here:
            with pytest.raises(KeysUnavailable, match="answered 302"):
                await got(here.url)
    assert other.knocks == 0


async def test_what_is_too_large_is_given_up() -> None:
    async with receiver(saying(b"x" * 10_000_000)) as here:
        with pytest.raises(KeysUnavailable, match=r"auth\.jwks_max_bytes \(1000\)"):
            await got(here.url)
        assert len(await got(here.url, 10_000_000)) == 10_000_000


async def test_what_is_too_slow_is_given_up() -> None:
    async def hang(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with receiver(hang) as here:
        with pytest.raises(KeysUnavailable, match="no answer in time"):
            await got(here.url, timeout_s=0.1)


async def test_a_certificate_that_nobody_vouches_for_is_refused_and_said(
    certificate: Path,
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with receiver(saying(b"{}"), tls) as here:
        with pytest.raises(KeysUnavailable, match=r"no answer by TLS: .*self-signed certificate"):
            await got(here.url)
    assert here.seen == []


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://169.254.169.254/latest", "link-local"),
        ("http://metadata.google.internal/", "metadata"),
        ("http://127.0.0.1:6379/", "not for HTTP"),
        ("http://[fe80::1]/", "link-local"),
        ("http://0.0.0.0/", "this host"),
        ("file:///etc/passwd", "http:// or https://"),
        ("http://127.0.0.1:1/", "not for HTTP"),
    ],
)
async def test_even_an_operator_does_not_get_everywhere(url: str, word: str) -> None:
    with pytest.raises(KeysUnavailable, match=word):
        await got(url)
