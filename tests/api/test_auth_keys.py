"""Which key a token is checked with, and that it can't talk us into another."""

import json
import time
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from multidict import CIMultiDict

from penstock import keys
from penstock.api.auth import Key, TokenRules, Verifier, key_set
from penstock.api.problems import Problem
from tests.api.conftest import SECRET, Served
from tests.api.wire import call, raw
from tests.support.tokens import ALGORITHMS, Signer, secret_signer, signer

EACH_PUBLIC = pytest.mark.parametrize("algorithm", ALGORITHMS)


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ada", "exp": int(time.time()) + 60, "roles": ["viewer"], **more}


def takes(by: Verifier, token: str) -> bool:
    try:
        return by.caller(CIMultiDict(Authorization=f"Bearer {token}")).sub == "ada"
    except Problem as problem:
        if problem.slug != "unauthenticated":
            raise
        return False


def with_keys(*public: keys.PublicKey, secret: str | None = None) -> Verifier:
    return Verifier(key_set(secret, public), TokenRules())


def of(signing: Signer, **header: Any) -> str:
    return signing.token(claims(), **header)


def test_all_algorithms_can_be_configured_together() -> None:
    by = with_keys(*(signer(a).public() for a in ALGORITHMS), secret=SECRET)
    for algorithm in ("HS256", *ALGORITHMS):
        assert takes(by, of(signer(algorithm)))


@EACH_PUBLIC
def test_only_what_is_configured_is_taken(algorithm: str) -> None:
    by = with_keys(signer(algorithm).public())
    assert takes(by, of(signer(algorithm)))
    assert not takes(by, of(signer(algorithm, 1)))
    for other in {"HS256", *ALGORITHMS} - {algorithm}:
        assert not takes(by, of(signer(other)))


@pytest.mark.parametrize("secret", [None, SECRET])
@EACH_PUBLIC
def test_the_text_of_a_public_key_is_no_secret(algorithm: str, secret: str | None) -> None:
    by = with_keys(signer(algorithm).public("k"), secret=secret)
    pem, jwk = signer(algorithm).public_pem, json.dumps(signer(algorithm).jwk())
    for text in (pem, pem.strip(), pem.replace("\n", "\r\n"), jwk, jwk.replace(" ", "")):
        for header in ({}, {"kid": "k"}, {"alg": algorithm}, {"alg": algorithm, "kid": "k"}):
            assert not takes(by, of(secret_signer(text), **header))


def test_another_alg_in_the_header_of_a_right_signature_is_refused() -> None:
    by = with_keys(*(signer(a).public("k") for a in ALGORITHMS), secret=SECRET)
    for algorithm in ("HS256", *ALGORITHMS):
        for other in {"HS256", "none", "RS512", "ES384", "PS256", *ALGORITHMS} - {algorithm}:
            assert not takes(by, of(signer(algorithm), alg=other, kid="k"))
            assert not takes(by, of(signer(algorithm), alg=other))


@pytest.mark.parametrize("other", ["RS384", "RS512", "PS256", "PS512"])
def test_the_algorithm_is_that_of_the_key_even_if_the_finder_heeds_none(other: str) -> None:
    key = Key("RS256", signer("RS256").public().material)
    by = Verifier(lambda _kid, _algorithm: key, TokenRules())
    assert takes(by, of(signer("RS256")))
    pem = signer("RS256").private_pem
    assert jwt.decode(jwt.encode(claims(), pem, other), signer("RS256").public_pem, [other])
    assert not takes(by, jwt.encode(claims(), pem, other))


@EACH_PUBLIC
def test_of_several_keys_the_kid_chooses(algorithm: str) -> None:
    old, new, foreign = (signer(algorithm, number) for number in range(3))
    by = with_keys(old.public("old"), new.public("new"))
    assert takes(by, of(old, kid="old"))
    assert takes(by, of(new, kid="new"))
    assert not takes(by, of(old, kid="new"))
    assert not takes(by, of(old, kid="foreign"))
    assert not takes(by, of(foreign, kid="old"))
    assert not takes(by, of(old))  # which of them?


@EACH_PUBLIC
def test_a_key_with_a_kid_is_for_tokens_of_its_kid_or_of_none(algorithm: str) -> None:
    by = with_keys(signer(algorithm).public("k"), secret=SECRET)
    assert takes(by, of(signer(algorithm), kid="k"))
    assert takes(by, of(signer(algorithm)))
    assert not takes(by, of(signer(algorithm), kid="other"))


@EACH_PUBLIC
def test_a_key_without_a_kid_is_for_all_that_name_no_other(algorithm: str) -> None:
    named, nameless = signer(algorithm), signer(algorithm, 1)
    by = with_keys(named.public("k"), nameless.public())
    assert takes(by, of(named, kid="k"))
    assert takes(by, of(nameless))
    assert takes(by, of(nameless, kid="other"))
    assert not takes(by, of(nameless, kid="k"))
    assert not takes(by, of(named))


def test_the_secret_is_for_tokens_of_any_kid() -> None:
    by = with_keys(signer("RS256").public("k"), secret=SECRET)
    for header in ({}, {"kid": "k"}, {"kid": "other"}):
        assert takes(by, of(signer("HS256"), **header))


def test_one_kid_may_name_keys_of_two_algorithms() -> None:
    by = with_keys(*(signer(a).public("k") for a in ALGORITHMS))
    for algorithm in ALGORITHMS:
        assert takes(by, of(signer(algorithm), kid="k"))


def test_ten_thousand_unknown_kids_cost_no_signature_and_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by = with_keys(*(signer(a).public("k") for a in ALGORITHMS))
    checks = Mock(wraps=jwt.decode)
    monkeypatch.setattr(jwt, "decode", checks)
    head, body, signature = of(signer("RS256"), kid="k").split(".")
    for i in range(10_000):
        header = Signer("RS256", lambda _: b"").forged({"alg": "RS256", "kid": f"k{i}"}, {})
        assert not takes(by, f"{header.split('.')[0]}.{body}.{signature}")
    assert checks.call_count == 0
    assert by._seen == {}
    assert takes(by, f"{head}.{body}.{signature}")
    assert checks.call_count == 1


def test_a_token_costs_one_signature_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    by = with_keys(*(signer("ES256", i).public(f"k{i}") for i in range(3)), secret=SECRET)
    checks = Mock(wraps=jwt.decode)
    monkeypatch.setattr(jwt, "decode", checks)
    for header in ({}, {"kid": "k1"}, {"kid": "k2"}, {"kid": "other"}):
        before = checks.call_count
        takes(by, of(signer("ES256", 1), **header))
        assert checks.call_count <= before + 1


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "authorization: Bearer\r\n",
        "authorization: Bearer \r\n",
        "authorization: Basic x\r\n",
        "authorization: {token}\r\n",
        "authorization: Bearer {token}\r\nauthorization: Bearer {token}\r\n",
        "authorization: Bearer {token}\r\nAuthorization: Basic x\r\n",
        "authorization: Bearer {token}, Bearer {token}\r\n",
        "proxy-authorization: Bearer {token}\r\n",
        "cookie: token={token}\r\n",
    ],
)
@pytest.mark.parametrize("query", ["", "?access_token={token}", "?token={token}"])
async def test_a_token_elsewhere_than_in_the_one_header_is_none(
    served: Served, lines: str, query: str
) -> None:
    token = of(signer("HS256"))
    async with served() as port:
        head = f"GET /v1/queues{query} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".replace("{token}", token)
        answer = await raw(port, head.encode())
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert token.encode() not in answer.body


@pytest.mark.parametrize("size", [9_000, 1_000_000])
async def test_a_token_that_is_too_long_is_400(served: Served, size: int) -> None:
    token = signer("HS256").token(claims(x="x" * size))
    async with served() as port:
        answer = await call(port, "GET", "/v1/queues", authorization=f"Bearer {token}")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
