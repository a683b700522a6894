"""Which tokens open the door, and which don't."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from multidict import CIMultiDict

from penstock.api import auth
from penstock.api.auth import Key, TokenRules, Verifier, shared_secret
from penstock.api.problems import Problem
from penstock.domain.caller import Role
from tests.api.conftest import SECRET

MakeToken = Callable[..., str]


def verifier(**rules: Any) -> Verifier:
    return Verifier(shared_secret(SECRET), TokenRules(**rules))


def ask(token: str, by: Verifier | None = None) -> Any:
    return (by or verifier()).caller(CIMultiDict(Authorization=f"Bearer {token}"))


def why_not(token: str, by: Verifier | None = None) -> str:
    with pytest.raises(Problem) as refused:
        ask(token, by)
    assert refused.value.slug == "unauthenticated"
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}
    return refused.value.detail


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: Any, claims: Any, secret: str = SECRET) -> str:
    """Signs anything at all, also what pyjwt would refuse to make."""
    head, body = (
        b64(part if isinstance(part, bytes) else json.dumps(part).encode())
        for part in (header, claims)
    )
    signature = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{b64(signature)}"


def good_claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ada", "exp": int(time.time()) + 60, "roles": ["viewer"], **more}


def test_a_good_token_names_the_caller(token: MakeToken) -> None:
    caller = ask(token(roles=["submitter", "astronaut"], queues=["mail-*", "billing"]))
    assert caller.sub == "ada"
    assert caller.roles == {Role.SUBMITTER}
    assert caller.sees("mail-out")
    assert not caller.sees("other")


def test_without_queues_all_are_open_and_with_an_empty_list_none(token: MakeToken) -> None:
    assert ask(token()).sees("any")
    assert not ask(token(queues=[])).sees("any")


def test_without_roles_nothing_is_allowed(token: MakeToken) -> None:
    assert not any(ask(token(roles=None)).may(role) for role in Role)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Basic YTpi")],
        [("Authorization", "{token}")],
        [("Authorization", "Bearer {token}"), ("Authorization", "Bearer {token}")],
        [("Authorization", "Bearer  {token}")],
    ],
)
def test_there_must_be_one_bearer_token(headers: list[tuple[str, str]], token: MakeToken) -> None:
    made = token()
    sent = CIMultiDict((name, value.format(token=made)) for name, value in headers)
    with pytest.raises(Problem, match="unauthenticated"):
        verifier().caller(sent)


def test_the_scheme_may_be_spelled_in_any_case(token: MakeToken) -> None:
    assert verifier().caller(CIMultiDict(authorization=f"bearer {token()}")).sub == "ada"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": str(2**31)},
        {"exp": 4e9},
        {"exp": True},
        {"exp": -5},
        {"exp": 10**400},
        {"exp": int(time.time()) + 401 * 24 * 3600},
        {"exp": int(time.time()) - 31},
        {"nbf": int(time.time()) + 3600},
        {"nbf": "soon"},
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"sub": ["ada"]},
        {"sub": "a" * 256},
        {"sub": "ada\r\n"},
        {"sub": "a\u202eb"},
        {"roles": "admin"},
        {"roles": [1]},
        {"roles": {"admin": True}},
        {"queues": "billing"},
        {"queues": None},
        {"queues": [None]},
        {"queues": ["x" * 101]},
        {"queues": ["x"] * 101},
    ],
)
def test_bad_claims_are_refused(claims: dict[str, Any]) -> None:
    whole = good_claims() | claims
    left = {name: value for name, value in whole.items() if value is not None or name == "queues"}
    assert why_not(forged({"alg": "HS256", "typ": "JWT"}, left))


def test_claims_within_the_leeway_pass(token: MakeToken) -> None:
    assert ask(token(exp=int(time.time()) - 20, nbf=int(time.time()) + 20))


def test_a_token_issued_in_the_future_passes_for_clocks_differ(token: MakeToken) -> None:
    assert ask(token(iat=int(time.time()) + 900))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "nOnE"},
        {"alg": "HS512"},
        {"alg": "RS256"},
        {"alg": ["HS256"]},
        {},
        [],
        b"[" * 100_000,
        b"\xff\xfe",
        {"alg": "HS256", "jku": "https://evil.example/keys"},
        {"alg": "HS256", "jwk": {"kty": "oct", "k": "YQ"}},
        {"alg": "HS256", "x5u": "https://evil.example/cert"},
        {"alg": "HS256", "x5c": []},
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "zip": "DEF"},
        {"alg": "HS256", "b64": False},
        {"alg": "HS256", "typ": "dpop+jwt"},
        {"alg": "HS256", "typ": 5},
        {"alg": "HS256", "kid": 5},
        {"alg": "HS256", "kid": "../../etc/passwd"},
        {"alg": "HS256", "kid": "a" * 65},
    ],
)
def test_bad_headers_are_refused(header: Any) -> None:
    assert why_not(forged(header, good_claims()))


@pytest.mark.parametrize("header", [{"alg": "HS256"}, {"alg": "HS256", "typ": "at+JWT"}])
def test_the_type_may_be_left_out_or_be_that_of_an_access_token(header: Any) -> None:
    assert ask(forged(header, good_claims()))


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "." * 50, "{}"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert why_not(text)


@pytest.mark.parametrize("payload", [b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_claims_that_are_no_object_are_refused(payload: bytes) -> None:
    assert why_not(forged({"alg": "HS256"}, payload))


def test_another_secret_is_refused() -> None:
    signed = forged({"alg": "HS256"}, good_claims(), secret="another-secret-with-32-bytes-or-more")
    assert why_not(signed) == "the token isn't valid here"


def test_the_signature_may_not_be_left_off(token: MakeToken) -> None:
    head, body, _ = token().split(".")
    assert why_not(f"{head}.{body}.")


@pytest.mark.parametrize(
    ("claims", "passes"),
    [
        ({}, False),
        ({"iss": "https://id", "aud": "penstock"}, True),
        ({"iss": "https://id", "aud": ["x", "penstock"]}, True),
        ({"iss": "https://id.evil", "aud": "penstock"}, False),
        ({"iss": ["https://id"], "aud": "penstock"}, False),
        ({"iss": "https://id", "aud": "other"}, False),
        ({"iss": "https://id", "aud": {"penstock": 1}}, False),
        ({"iss": "https://id", "aud": [["penstock"]]}, False),
    ],
)
def test_issuer_and_audience_are_checked_where_configured(
    claims: dict[str, Any], passes: bool
) -> None:
    strict = verifier(issuer="https://id", audience="penstock")
    signed = forged({"alg": "HS256"}, good_claims(**claims))
    if passes:
        assert ask(signed, strict)
    else:
        assert why_not(signed, strict)


def test_issuer_and_audience_are_free_where_not_configured(token: MakeToken) -> None:
    assert ask(token(iss="anyone", aud="anything"))


def test_the_algorithm_comes_from_the_key_and_an_unknown_kid_has_none() -> None:
    long = SECRET * 2
    keys = {"new": Key("HS256", long)}
    by = Verifier(lambda kid: keys.get(kid or ""), TokenRules())
    assert ask(jwt.encode(good_claims(), long, "HS256", headers={"kid": "new"}), by)
    assert why_not(jwt.encode(good_claims(), long, "HS512", headers={"kid": "new"}), by)
    assert why_not(jwt.encode(good_claims(), long, "HS256", headers={"kid": "old"}), by)


def test_a_token_is_checked_once_and_known_until_it_expires(
    token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = Mock(wraps=jwt.decode)
    monkeypatch.setattr(jwt, "decode", checks)
    now = time.time()
    by = Verifier(shared_secret(SECRET), TokenRules(), lambda: now)
    made = token(exp=int(now) + 10)
    assert [ask(made, by).sub for _ in range(5)] == ["ada"] * 5
    assert checks.call_count == 1
    now += 11
    ask(made, by)
    assert checks.call_count == 2


def test_what_is_known_is_bounded(token: MakeToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_SEEN_MAX", 3)
    by = verifier()
    for i in range(10):
        ask(token(sub=f"s{i}"), by)
    assert [caller.sub for caller, _ in by._seen.values()] == ["s7", "s8", "s9"]


def test_nothing_of_a_token_is_in_a_refusal(token: MakeToken) -> None:
    made = token(sub="secret-name") + "x"
    with pytest.raises(Problem) as refused:
        ask(made)
    assert not any(part in repr(refused.value.__dict__) for part in made.split("."))
