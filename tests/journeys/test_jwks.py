"""Tokens whose keys somebody else publishes, against a replica and a provider over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from penstock.access import Access
from penstock.server import Replica, running
from penstock.settings import Settings
from tests.egress.receiver import Receiver, receiver
from tests.support.api import token as secret_token
from tests.support.contract import contract
from tests.support.tokens import Signer, rsa_key, secret_signer, signer, signing
from tests.support.waiting import eventually

FIRST, SECOND, THIRD = (signer("RS256", n) for n in range(3))


@dataclass
class Provider:
    keys: list[Any] = field(default_factory=list)
    status: int = 200
    held: asyncio.Event | None = None
    at: Receiver = field(default_factory=Receiver)

    async def answer(self, _request: web.Request) -> web.StreamResponse:
        if self.held is not None:
            await self.held.wait()
        return web.json_response({"keys": self.keys}, status=self.status)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    here = Provider([FIRST.jwk(kid="first")])
    async with receiver(here.answer) as here.at:
        yield here


@dataclass
class Stand:
    replica: Replica
    access: Access
    session: aiohttp.ClientSession

    async def ask(self, token: str, path: str = "/v1/queues") -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {token}"}
        async with self.session.get(self.replica.url + path, headers=headers) as answer:
            contract().check("GET", path, answer.status, answer.headers, await answer.read())
            return answer

    async def status(self, token: str) -> int:
        return (await self.ask(token)).status

    async def submitted(self, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        url, body = f"{self.replica.url}/v1/jobs", {"kind": "echo"}
        async with self.session.post(url, json=body, headers=headers) as answer:
            return answer.status

    async def degraded(self) -> list[str]:
        async with self.session.get(f"{self.replica.url}/readyz") as answer:
            assert answer.status == 200
            return list((await answer.json())["degraded"])

    async def fetch_now(self) -> None:
        """As when the set has got old."""
        self.access.published._due_at = float("-inf")
        self.access.published.wake.set()


Stands = Callable[..., AbstractAsyncContextManager[Stand]]


@pytest.fixture
def stands(
    replica_settings: Settings, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> Stands:
    made: list[Access] = []
    make = Access.__init__

    def kept(self: Access, *args: Any) -> None:
        make(self, *args)
        made.append(self)

    monkeypatch.setattr(Access, "__init__", kept)

    @asynccontextmanager
    async def opened(**http: Any) -> AsyncIterator[Stand]:
        changed = {
            "auth": {"jwks_url": f"{provider.at.url}/keys"},
            "http": http,
        }
        settings = replica_settings.model_copy(
            update={
                name: getattr(replica_settings, name).model_copy(update=fields)
                for name, fields in changed.items()
            }
        )
        async with running(settings) as replica, aiohttp.ClientSession() as session:
            yield Stand(replica, made[-1], session)

    return opened


def of(by: Signer, **header: Any) -> str:
    claims = {"sub": "ada", "exp": int(time.time()) + 600, "roles": ["viewer"]}
    return by.token(claims, **header)


async def test_published_keys_open_the_door_beside_the_secret(
    stands: Stands, provider: Provider
) -> None:
    async with stands() as stand:
        assert await stand.status(of(FIRST, kid="first")) == 200
        assert await stand.status(of(FIRST)) == 200  # the only one of its algorithm
        assert await stand.status(secret_token("viewer")) == 200
        assert await stand.degraded() == []
        for bad in (
            of(SECOND, kid="first"),
            of(secret_signer(FIRST.public_pem), kid="first"),
            of(secret_signer(), kid="first", alg="RS256"),
            of(FIRST, kid="first", alg="ES256"),
            of(FIRST, kid="first", jku=f"{provider.at.url}/evil"),
        ):
            assert await stand.status(bad) == 401
        assert {seen.path for seen in provider.at.seen} == {"/keys"}


async def test_a_start_does_not_wait_for_the_keys_and_says_what_is_missing(
    stands: Stands, provider: Provider
) -> None:
    provider.status = 500
    async with stands() as stand:
        refused = await stand.ask(of(FIRST, kid="first"))
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert await stand.degraded() == ["jwks"]
        assert await stand.status(secret_token("viewer")) == 200
        assert await stand.status("no.token.atall") == 401
        assert await stand.status(of(secret_signer("another secret of 32 bytes, at least"))) == 401
        provider.status = 200

        async def opens() -> bool:
            return await stand.status(of(FIRST, kid="first")) == 200

        await eventually(opens, "the keys are fetched")
        assert await stand.degraded() == []


async def test_a_new_key_is_found_and_a_flood_of_names_fetches_once(
    stands: Stands, provider: Provider
) -> None:
    async with stands() as stand:
        assert await stand.status(of(FIRST, kid="first")) == 200
        assert len(provider.at.seen) == 1
        provider.keys.append(SECOND.jwk(kid="second"))
        stand.access.published._asked_at -= 31  # as if it were so long ago
        flood = [of(SECOND, kid=f"unknown-{n}") for n in range(40)]
        statuses = await asyncio.gather(
            stand.status(of(SECOND, kid="second")), *map(stand.status, flood)
        )
        assert statuses == [200] + [401] * 40
        assert len(provider.at.seen) == 2
        provider.keys.append(THIRD.jwk(kid="third"))
        assert await stand.status(of(THIRD, kid="third")) == 401  # not again so soon
        assert len(provider.at.seen) == 2


async def test_who_waits_for_a_key_takes_nobodys_place(stands: Stands, provider: Provider) -> None:
    async with stands(submissions_in_flight_max=5) as stand:
        assert await stand.status(of(FIRST, kid="first")) == 200
        assert await stand.submitted(secret_token()) == 201  # leaves a connection at rest
        provider.held = asyncio.Event()
        stand.access.published._asked_at -= 31
        strangers = [asyncio.create_task(stand.submitted(of(SECOND, kid="x"))) for _ in range(5)]

        async def is_asked() -> bool:
            return len(provider.at.seen) == 2

        await eventually(is_asked, "the strangers wait for a fetch")
        assert await stand.submitted(secret_token()) == 201
        assert not any(one.done() for one in strangers)
        provider.held.set()
        assert await asyncio.gather(*strangers) == [401] * 5
        assert await stand.submitted(secret_token()) == 201


async def test_a_key_that_is_taken_out_no_longer_opens_though_its_token_is_known(
    stands: Stands, provider: Provider
) -> None:
    async with stands() as stand:
        known = of(FIRST, kid="first")
        assert await stand.status(known) == 200
        provider.keys = [SECOND.jwk(kid="second")]
        await stand.fetch_now()

        async def is_shut() -> bool:
            return await stand.status(known) == 401

        await eventually(is_shut, "the key is forgotten")
        assert await stand.status(of(SECOND, kid="second")) == 200


async def test_keys_that_are_not_for_tokens_are_passed_over(
    stands: Stands, provider: Provider
) -> None:
    weak, good = rsa_key(1024), FIRST.jwk(kid="good")
    weak_signer = Signer("RS256", signing(weak))
    provider.keys = [
        _jwk_of(weak, kid="weak"),
        SECOND.jwk(kid="enc", use="enc"),
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I", "kid": "oct"},
        {"kty": "EC", "kid": "broken"},
        {"kty": ["RSA"], "kid": "odd"},
        SECOND.jwk(kid="../../x"),
        THIRD.jwk(kid="good"),  # a twin: the first of a name counts
        "no key",
        None,
    ]
    provider.keys.insert(0, good)
    async with stands() as stand:
        assert await stand.status(of(FIRST, kid="good")) == 200
        assert len(stand.access.published.keys) == 1
        for bad in (
            of(weak_signer, kid="weak"),
            of(SECOND, kid="enc"),
            of(secret_signer("secret-secret-secret-secret-secr"), kid="oct"),
            of(THIRD, kid="good"),
        ):
            assert await stand.status(bad) == 401


async def test_other_settings_count_at_once_and_known_tokens_are_checked_anew(
    stands: Stands, provider: Provider, replica_settings: Settings
) -> None:
    async with stands() as stand:
        old, known = secret_token("viewer"), of(FIRST, kid="first")
        assert [await stand.status(one) for one in (old, known)] == [200, 200]
        auth = replica_settings.auth.model_copy(update={"issuer": "https://id.example"})
        stand.access.change(auth, replica_settings.rate_limits)  # without a key set
        assert [await stand.status(one) for one in (old, known)] == [401, 401]
        auth = replica_settings.auth.model_copy(update={"jwks_url": f"{provider.at.url}/new"})
        stand.access.change(auth, replica_settings.rate_limits)
        assert [await stand.status(one) for one in (old, known)] == [200, 200]
        assert provider.at.seen[-1].path == "/new"


def _jwk_of(key: Any, **members: str) -> dict[str, Any]:
    to_jwk: Any = jwt.get_algorithm_by_name("RS256").to_jwk
    return {**to_jwk(key.public_key(), as_dict=True), **members}
