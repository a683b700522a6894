"""Which tokens open the door, and which don't."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import jwt
import pytest
from multidict import CIMultiDict

from penstock.api import auth
from penstock.api.auth import TokenRules, Verifier, key_set
from penstock.api.problems import Problem
from penstock.domain.caller import Role
from tests.api.conftest import SECRET
from tests.support.tokens import ALGORITHMS, b64, secret_signer, signer

MakeToken = Callable[..., str]
EACH = pytest.mark.parametrize("algorithm", ["HS256", *ALGORITHMS])


def verifier(**rules: Any) -> Verifier:
    """Takes tokens of all algorithms."""
    public = [signer(algorithm).public() for algorithm in ALGORITHMS]
    return Verifier(key_set(SECRET, public), TokenRules(**rules))


def ask(token: str, by: Verifier | None = None) -> Any:
    return (by or verifier()).caller(CIMultiDict(Authorization=f"Bearer {token}"))


def why_not(token: str, by: Verifier | None = None) -> str:
    with pytest.raises(Problem) as refused:
        ask(token, by)
    assert refused.value.slug == "unauthenticated"
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}
    return refused.value.detail


def forged(header: Any, claims: Any) -> str:
    return secret_signer().forged(header, claims)


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
        {"exp": int(time.time()) + 10 * 365 * 24 * 3600},
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
        {"queues": ["a\0b"]},
        {"queues": ["\ud800*"]},
        {"queues": ["ä-*"]},
        {"queues": ["*-a"] * 67},
        {"queues": ["*" + "?" * 90 + "b"] * 3},
    ],
)
@EACH
def test_bad_claims_are_refused(claims: dict[str, Any], algorithm: str) -> None:
    whole = good_claims() | claims
    left = {name: value for name, value in whole.items() if value is not None or name == "queues"}
    assert why_not(signer(algorithm).token(left))


@EACH
def test_a_claim_that_is_there_twice_is_refused(algorithm: str) -> None:
    claims = b'{"sub": "ada", "exp": 1, "exp": %d}' % (time.time() + 60)
    header = {"alg": algorithm, "typ": "JWT"}
    assert why_not(signer(algorithm).forged(header, claims)) == "the token has a name twice"
    nested = b'{"sub": "ada", "exp": %d, "x": {"y": 1, "y": 2}}' % (time.time() + 60)
    assert why_not(signer(algorithm).forged(header, nested)) == "the token has a name twice"


def test_a_header_that_is_there_twice_is_refused() -> None:
    header = b'{"alg": "none", "alg": "HS256"}'
    assert why_not(forged(header, good_claims())) == "the token has a name twice"


def test_claims_within_the_leeway_pass(token: MakeToken) -> None:
    assert ask(token(exp=int(time.time()) - 20, nbf=int(time.time()) + 20))


def test_a_token_issued_in_the_future_passes_for_clocks_differ(token: MakeToken) -> None:
    assert ask(token(iat=int(time.time()) + 900))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "nOnE"},
        {"alg": "None"},
        {"alg": "HS512"},
        {"alg": "RS512"},
        {"alg": "PS256"},
        {"alg": "ES384"},
        {"alg": ["HS256"]},
        {"alg": {}},
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
        {"alg": "HS256", "typ": {}},
        {"alg": "HS256", "kid": 5},
        {"alg": "HS256", "kid": ""},
        {"alg": "HS256", "kid": "../../etc/passwd"},
        {"alg": "HS256", "kid": "' OR 1=1"},
        {"alg": "HS256", "kid": "a\n"},
        {"alg": "HS256", "kid": "a" * 65},
        {"alg": "HS256", "kid": "a" * 1_000_000},
    ],
)
@EACH
def test_bad_headers_are_refused(header: Any, algorithm: str) -> None:
    if isinstance(header, dict) and header.get("alg") == "HS256":
        header = header | {"alg": algorithm}
    assert why_not(signer(algorithm).forged(header, good_claims()))


@pytest.mark.parametrize(
    ("wanted", "typ", "passes"),
    [
        (None, None, True),
        (None, "JWT", True),
        (None, "at+JWT", True),
        (None, "dpop+jwt", False),
        ("JWT", "jwt", True),
        ("JWT", None, False),
        ("JWT", "at+jwt", False),
        ("at+jwt", "at+jwt", True),
        ("at+jwt", "application/at+jwt", True),
        ("at+jwt", "JWT", False),
        ("at+jwt", None, False),
    ],
)
@EACH
def test_the_type_is_checked_where_configured(
    wanted: str | None, typ: str | None, passes: bool, algorithm: str
) -> None:
    made, by = signer(algorithm).token(good_claims(), typ=typ), verifier(token_type=wanted)
    if passes:
        assert ask(made, by)
    else:
        assert why_not(made, by) == "the token is of another type"


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "." * 50, "{}"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert why_not(text)


@pytest.mark.parametrize("payload", [b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
@EACH
def test_claims_that_are_no_object_are_refused(payload: bytes, algorithm: str) -> None:
    assert why_not(signer(algorithm).forged({"alg": algorithm}, payload))


@EACH
def test_the_signature_may_not_be_left_off_or_be_another(algorithm: str) -> None:
    made, other = (signer(algorithm).token(good_claims(sub=sub)) for sub in ("ada", "eve"))
    head, body, signature = made.split(".")
    for changed in (
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{other.rpartition('.')[2]}",
        f"{head}.{other.split('.')[1]}.{signature}",
        f"{made}.{signature}",
        f"{head}.{body}.{b64(b'0' * 64)}",
    ):
        assert why_not(changed)
    assert ask(made).sub == "ada"


@pytest.mark.parametrize(
    ("claims", "passes"),
    [
        ({}, False),
        ({"iss": "https://id"}, False),
        ({"aud": "penstock"}, False),
        ({"iss": "https://id", "aud": "penstock"}, True),
        ({"iss": "https://id", "aud": ["x", "penstock"]}, True),
        ({"iss": "https://id.evil", "aud": "penstock"}, False),
        ({"iss": ["https://id"], "aud": "penstock"}, False),
        ({"iss": "https://id", "aud": "other"}, False),
        ({"iss": "https://id", "aud": {"penstock": 1}}, False),
        ({"iss": "https://id", "aud": [["penstock"]]}, False),
    ],
)
@EACH
def test_issuer_and_audience_are_checked_where_configured(
    claims: dict[str, Any], passes: bool, algorithm: str
) -> None:
    strict = verifier(issuer="https://id", audience="penstock")
    signed = signer(algorithm).token(good_claims(**claims))
    if passes:
        assert ask(signed, strict)
    else:
        assert why_not(signed, strict)


def test_issuer_and_audience_are_free_where_not_configured(token: MakeToken) -> None:
    assert ask(token(iss="anyone", aud="anything"))


def test_a_token_is_checked_once_and_known_until_it_expires(
    token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = Mock(wraps=jwt.decode)
    monkeypatch.setattr(jwt, "decode", checks)
    now = time.time()
    by = Verifier(key_set(SECRET), TokenRules(), lambda: now)
    made = token(exp=int(now) + 10)
    assert [ask(made, by).sub for _ in range(5)] == ["ada"] * 5
    assert checks.call_count == 1
    now += 11
    ask(made, by)
    assert checks.call_count == 2


def test_what_is_known_is_bounded_in_tokens(
    token: MakeToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_SEEN_MAX", 3)
    by = verifier()
    for i in range(10):
        ask(token(sub=f"s{i}"), by)
    assert [caller.sub for caller, _ in by._seen.values()] == ["s7", "s8", "s9"]


@pytest.mark.parametrize(
    ("count", "more"),
    [(150, {"x": "x" * 6000}), (200, {"queues": [f"q{i}" for i in range(100)]})],
)
def test_what_is_known_is_bounded_in_bytes(
    token: MakeToken, monkeypatch: pytest.MonkeyPatch, count: int, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(auth, "_SEEN_MAX_BYTES", 1024 * 1024)
    by = verifier()
    tracemalloc.start()
    try:
        for i in range(count):
            ask(token(sub=f"s{i}", **more), by)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(by._seen) < count
    assert auth._SEEN_MAX_BYTES * 0.9 < by._seen_bytes <= auth._SEEN_MAX_BYTES
    assert held < 2 * auth._SEEN_MAX_BYTES
    assert next(reversed(by._seen.values()))[0].sub == f"s{count - 1}"


def test_what_is_known_is_counted_when_a_token_expires(token: MakeToken) -> None:
    now = time.time()
    by = Verifier(key_set(SECRET), TokenRules(), lambda: now)
    made = token(exp=int(now) - 10)
    for _ in range(3):  # within the leeway, and so checked anew each time
        ask(made, by)
    assert by._seen_bytes == len(made)


def test_nothing_of_a_token_is_in_a_refusal(token: MakeToken) -> None:
    made = token(sub="secret-name") + "x"
    with pytest.raises(Problem) as refused:
        ask(made)
    assert not any(part in repr(refused.value.__dict__) for part in made.split("."))
