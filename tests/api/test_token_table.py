"""The table of bad tokens (reliability.md, 4.1, "Auth") row by row, over HTTP at one door.

Where api.md differs it wins: `iat` isn't required; `exp` reaches `auth.token_max_age_s`, 400 days
by default, and not 24 hours; an id_token is told from an access token by its `typ`, where
`auth.token_type` asks for one (`STRICT`), and not by claims that the contract doesn't know.
The tokens are made when this module is read, and good for a day; the leeway is in test_auth.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from penstock.api.auth import TokenRules, Verifier, key_set
from tests.api.conftest import SECRET, Served
from tests.api.wire import call
from tests.support.tokens import ALGORITHMS, secret_signer, signer

RULES = TokenRules(issuer="https://id.example", audience="penstock")
STRICT = TokenRules(issuer="https://id.example", audience="penstock", token_type="at+jwt")
PASSED = 400  # an unknown parameter is told to those only whose token is good
ASKED = "/v1/queues?access_token=x"
DAY_S = 86_400
BY = signer("RS256")


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token; a claim given as None is left out."""
    now = int(time.time())
    whole: dict[str, Any] = {
        "sub": "ada",
        "iss": "https://id.example",
        "aud": "penstock",
        "roles": ["viewer"],
    }
    whole |= {"iat": now, "exp": now + DAY_S, **changed}
    return {name: value for name, value in whole.items() if value is not None}


def bearer(*changed: dict[str, Any], **header: Any) -> list[str]:
    made = claims(**changed[0]) if changed else claims()
    return [f"Bearer {BY.token(made, kid='k', **header)}"]


def signed(text: str | bytes, **header: Any) -> list[str]:
    """By HS256, with any text as the secret."""
    return [f"Bearer {secret_signer(text).token(claims(), **header)}"]


def raw(header: Any, body: Any) -> list[str]:
    return [f"Bearer {BY.forged(header, body)}"]


GOOD = bearer()[0]
HEAD = {"alg": "RS256", "typ": "JWT", "kid": "k"}
TWICE = json.dumps(claims()).replace('"exp"', '"exp": 1, "exp"', 1).encode()
HUGE_EXP = json.dumps(claims(exp=7)).replace('"exp": 7', '"exp": 1' + "0" * 400).encode()


@dataclass(frozen=True)
class Row:
    """`sent`: the Authorization headers of requests, each of which must get `status`."""

    sent: Sequence[Sequence[str]]
    status: int = 401
    rules: TokenRules = RULES


def now(seconds: float) -> int:
    return int(time.time() + seconds)


ROWS: dict[str, Row] = {
    "a good one passes": Row([bearer(), bearer(typ="at+jwt"), bearer(typ=None)], PASSED),
    "none, half a one, two, another scheme; one in the query string is not looked at": Row(
        [[], ["Bearer"], ["Bearer "], ["Basic x"], [GOOD, GOOD], [GOOD, "Basic x"], [GOOD[7:]]]
    ),
    "alg none in any case": Row([bearer(alg=alg) for alg in ("none", "None", "nOnE", "")]),
    "HS256 by the text of a public key": Row(
        [
            signed(text, **kid)
            for text in (BY.public_pem, json.dumps(BY.jwk()))
            for kid in ({}, HEAD)
        ]
    ),
    "one key with the header of another algorithm": Row(
        [
            [f"Bearer {signer(of).token(claims(), alg=alg, kid='k')}"]
            for of in ALGORITHMS
            for alg in ("HS256", "RS512", "PS256", "ES384", *ALGORITHMS)
            if of != alg
        ]
    ),
    "a claim is lacking": Row([bearer({name: None}) for name in ("exp", "sub", "aud", "iss")]),
    "over for 31 s, or not yet begun": Row(
        [bearer({"exp": now(-31)}), bearer({"nbf": now(DAY_S)})]
    ),
    "an audience of others": Row(
        [bearer({"aud": aud}) for aud in ("other", {"penstock": 1}, [["penstock"]], [], 5)]
    ),
    "an issuer that is none of ours": Row(
        [
            bearer({"iss": iss})
            for iss in ("https://id.exampl", "https://id.example.evil", ["https://id.example"], 5)
        ]
    ),
    "a subject that is no text": Row(
        [bearer({"sub": sub}) for sub in (5, ["ada"], {"a": 1}, "", True)]
    ),
    "an exp that is no whole number, or too far ahead": Row(
        [
            *(bearer({"exp": exp}) for exp in (str(now(DAY_S)), float(now(DAY_S)), 1e10, True)),
            *(bearer({"exp": now(days * DAY_S)}) for days in (401, 3650)),
            raw(HEAD, HUGE_EXP),
        ]
    ),
    "an exp within 400 days passes": Row([bearer({"exp": now(399 * DAY_S)})], PASSED),
    "a header that brings a key, or changes what is signed": Row(
        [
            bearer(**{name: value})
            for name, value in {
                "jku": "https://evil.example/jwks",
                "x5u": "https://evil.example/cert",
                "jwk": BY.jwk(),
                "x5c": ["MII"],
                "zip": "DEF",
                "crit": ["exp"],
                "b64": False,
            }.items()
        ]
    ),
    "another type": Row([bearer(typ=typ) for typ in ("dpop+jwt", "logout+jwt", 5, ["JWT"])]),
    "an id_token where access tokens are asked for": Row(
        [bearer({"nonce": "n", "at_hash": "h"}), bearer(typ=None)], rules=STRICT
    ),
    "an access token where those are asked for": Row([bearer(typ="at+JWT")], PASSED, STRICT),
    "a claim or header twice": Row(
        [raw(HEAD, TWICE), raw(b'{"alg": "none", "alg": "RS256"}', claims())]
    ),
    "a kid of another form, or unknown": Row(
        [
            raw({**HEAD, "kid": kid}, claims())
            for kid in (5, "../../x", "' OR 1=1", "", "a" * 65, "k\n", ["k"], "unknown")
        ]
    ),
    "parts that are no objects, or no text": Row(
        [
            raw([], claims()),
            raw(HEAD, []),
            raw(HEAD, b"[" * 3000),
            raw(b"[" * 3000, claims()),
            raw(HEAD, b"\xff\xfe"),
            raw(b"\xff\xfe", claims()),
        ]
    ),
    "not three parts": Row(
        [[f"Bearer {text}"] for text in ("a", "a.b", ".", "..", "...", "a.b.c.d", f"{GOOD[7:]}.x")]
    ),
    "too long for a header": Row(
        [
            bearer({"x": "x" * 9000}),
            bearer({"x": "x" * 1_000_000}),
            raw({**HEAD, "kid": "k" * 1_000_000}, claims()),
            raw(HEAD, b"[" * 100_000),
        ],
        400,
    ),
    "issued in the future, which is the clocks' fault": Row(
        [bearer({"iat": now(3600)}), bearer({"iat": None})], PASSED
    ),
}


def requests(row: Row) -> Iterator[dict[str, str]]:
    for sent in row.sent:
        yield dict(zip(("authorization", "Authorization"), sent, strict=False))


@pytest.mark.parametrize("name", ROWS)
async def test_tokens_of_the_table(served: Served, name: str) -> None:
    row = ROWS[name]
    public = [signer(algorithm).public("k") for algorithm in ALGORITHMS]
    by = Verifier(key_set(SECRET, public), row.rules)
    async with served(verifier=by) as port:
        for headers in requests(row):
            answer = await call(port, "GET", ASKED, None, **headers)
            told = (name, headers, answer.body)
            assert answer.status == row.status, told
            assert answer.headers["content-type"] == "application/problem+json", told
            assert ("www-authenticate" in answer.headers) == (row.status == 401), told
            if row.status == PASSED:
                slug = "bad-request" if "too long" in name else "unknown-query-parameter"
                assert answer.json()["type"] == f"/problems/{slug}", told
            for value in headers.values():
                assert value[7:90] not in answer.body.decode() or len(value) < 20, told
