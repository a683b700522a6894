"""Who asks: a bearer token becomes a `Caller`, or 401.

In: the request's headers. Out: the caller with roles and queues. Always holds: a token may choose
among our keys, but the algorithm is that of our key; it costs one signature at most, while shared
secrets are changed one of each; it is checked
once and then known by its text until it expires; no token and no part of one is logged or answered.
"""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

import jwt
from multidict import MultiMapping

from penstock import clock
from penstock.api.problems import Problem
from penstock.domain.caller import Caller, Role, too_much
from penstock.keys import Algorithm, PublicKey, PublicMaterial, is_kid
from penstock.loops.published import Published

_SEEN_MAX = 10_000  # tokens that we remember
_SEEN_MAX_BYTES = 8 * 1024 * 1024  # what they weigh together
_SUB_MAX = 255
_ROLES_MAX = 100
_RETRY_AFTER_MAX_S = 5  # while keys can't be fetched
_NO_KEY = "the token's key is unknown, or not for its algorithm"
_PUBLISHED = get_args(Algorithm)  # a secret is never published
_ROLE_NAMES = frozenset(Role)

# Headers by which a token would bring or point to its own key, or change what is signed.
_FOREIGN_KEYS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "zip", "b64"})

# The header `typ` in small letters, "" where there is none, by what auth.token_type says.
_ACCESS_TOKEN = frozenset({"at+jwt", "application/at+jwt"})
_TYPES: dict[str | None, frozenset[str]] = {
    None: _ACCESS_TOKEN | {"jwt", ""},
    "JWT": frozenset({"jwt"}),
    "at+jwt": _ACCESS_TOKEN,
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm that it is for. `former`: secrets that it follows, whose tokens
    are still taken."""

    algorithm: str
    material: str | PublicMaterial
    former: tuple[str, ...] = ()


# Finds the key that a token asks for by its `kid` and `alg`.
FindKey = Callable[[str | None, str], Key | None]


def key_set(
    secret: str | None, public: Iterable[PublicKey] = (), former: Iterable[str] = ()
) -> FindKey:
    """HS256 with a secret, or those it follows, and public keys. Two keys of one algorithm differ
    in their kid.

    The key of a token is that of its kid; else the one of its algorithm that has no kid (the secret
    is such a one); else, if the token has no kid, the only one of its algorithm.
    """
    keys = [(key.kid, Key(key.algorithm, key.material)) for key in public]
    if secret is not None:
        keys.append((None, Key("HS256", secret, tuple(former))))
    named = {(kid, key.algorithm): key for kid, key in keys}
    counts = Counter(key.algorithm for _, key in keys)
    only = {key.algorithm: key for _, key in keys if counts[key.algorithm] == 1}

    def find(kid: str | None, algorithm: str) -> Key | None:
        found = named.get((kid, algorithm)) or named.get((None, algorithm))
        return only.get(algorithm) if found is None and kid is None else found

    return find


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must keep to. The first three are checked where they are set."""

    issuer: str | None = None
    audience: str | None = None
    token_type: str | None = None  # JWT or at+jwt
    token_max_age_s: int = 400 * 24 * 3600
    leeway_s: int = 30


class Refused(Exception):
    """Why a token is not accepted; the text is for the caller."""


class KeyMissing(Exception):
    """None of our keys is the token's, but it may have been published since we looked."""


class Verifier:
    """Turns bearer tokens into callers. `published`: keys that are fetched by themselves; whoever
    hears of others there calls `change`."""

    def __init__(
        self,
        find_key: FindKey,
        rules: TokenRules,
        now_s: Callable[[], float] = clock.wall_s,
        published: Published | None = None,
    ) -> None:
        self._published = published
        self._find_key = find_key
        self._rules = rules
        self._now_s = now_s
        self._seen: dict[str, tuple[Caller, int]] = {}
        self._seen_bytes = 0

    def change(self, find_key: FindKey, rules: TokenRules | None = None) -> None:
        """Other keys, or rules, from now on: every token is checked anew."""
        self._find_key = find_key
        self._rules = rules or self._rules
        self._seen.clear()
        self._seen_bytes = 0

    def caller(self, headers: MultiMapping[str]) -> Caller:
        """The caller whom the one Authorization header names. Raises a 401 problem, or KeyMissing:
        then ask `caller_of_late`."""
        try:
            token = _bearer(headers)
            known = self._seen.get(token)
            if known is not None and self._now_s() < known[1]:
                return known[0]
            return self._check(token)
        except Refused as refused:
            raise _unauthenticated(str(refused)) from None

    async def caller_of_late(self, headers: MultiMapping[str]) -> Caller:
        """The same, once the published keys have been looked at again. Raises 401, or 503 where
        nobody knows whether there is such a key."""
        if self._published is not None:
            await self._published.look_again()
        try:
            return self.caller(headers)
        except KeyMissing:
            if self._published is not None and self._published.is_uncertain:
                raise Problem(
                    "keys-unavailable",
                    "the keys of tokens can't be fetched, and this token's is none of those that "
                    "are known: try again",
                    headers={"Retry-After": str(random.randint(1, _RETRY_AFTER_MAX_S))},
                ) from None
            raise _unauthenticated(_NO_KEY) from None

    def _check(self, token: str) -> Caller:
        self._forget(token)
        claims = self._claims(token, self._key(token))
        exp = claims["exp"]
        if type(exp) is not int:
            raise Refused("the token's exp must be a whole number")
        if exp > self._now_s() + self._rules.token_max_age_s + self._rules.leeway_s:
            raise Refused("the token's exp is too far ahead")
        caller = Caller(_sub(claims), _roles(claims), _queues(claims))
        self._remember(token, caller, exp)
        return caller

    def _key(self, token: str) -> Key:
        """Our key for the token, by a header that nobody has vouched for yet."""
        header = _decoded(token, 0)
        kid, typ, algorithm = header.get("kid"), header.get("typ", ""), header.get("alg")
        if not _FOREIGN_KEYS.isdisjoint(header):
            raise Refused("the token has a header that we don't accept")
        if not isinstance(typ, str) or typ.lower() not in _TYPES[self._rules.token_type]:
            raise Refused("the token is of another type")
        if kid is not None and not is_kid(kid):
            raise Refused("the token's kid has not the right form")
        key = self._find_key(kid, algorithm) if isinstance(algorithm, str) else None
        if key is None:
            if algorithm in _PUBLISHED and self._published is not None and self._published.is_on:
                raise KeyMissing
            raise Refused(_NO_KEY)
        return key

    def _claims(self, token: str, key: Key) -> dict[str, Any]:
        *former, last = key.material, *key.former
        try:
            for material in former:
                with suppress(jwt.InvalidSignatureError):
                    self._judge(token, key.algorithm, material)
                    return _decoded(token, 1)
            self._judge(token, key.algorithm, last)
        except jwt.ExpiredSignatureError:
            raise Refused("the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise Refused("the token isn't valid yet") from None
        except Exception:
            raise Refused("the token isn't valid here") from None
        return _decoded(token, 1)

    def _judge(self, token: str, algorithm: str, material: str | PublicMaterial) -> None:
        """Raises what PyJWT does where the token isn't signed by it, or doesn't keep to the
        rules."""
        rules = self._rules
        jwt.decode(
            token,
            material,
            algorithms=[algorithm],
            issuer=rules.issuer,
            audience=rules.audience,
            leeway=rules.leeway_s,
            options={
                "require": ["exp", "sub"],
                "verify_iat": False,  # says nothing about validity, and clocks differ
                "verify_aud": rules.audience is not None,
            },
        )

    def _remember(self, token: str, caller: Caller, exp: int) -> None:
        self._seen[token] = (caller, exp)
        self._seen_bytes += _weight(token, caller)
        while len(self._seen) > _SEEN_MAX or self._seen_bytes > _SEEN_MAX_BYTES:
            self._forget(next(iter(self._seen)))

    def _forget(self, token: str) -> None:
        known = self._seen.pop(token, None)
        if known is not None:
            self._seen_bytes -= _weight(token, known[0])


def _unauthenticated(why: str) -> Problem:
    return Problem("unauthenticated", why, headers={"WWW-Authenticate": "Bearer"})


def _weight(token: str, caller: Caller) -> int:
    """Bytes, about: of each glob Python keeps 60 more than its text, which the token has too."""
    return len(token) + 60 * len(caller.queues or ())


def _bearer(headers: MultiMapping[str]) -> str:
    found = headers.getall("Authorization", [])
    if len(found) != 1:
        raise Refused("send one Authorization header: Bearer <token>")
    scheme, _, token = found[0].partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused("send the token as: Authorization: Bearer <token>")
    return token


def _decoded(token: str, part: int) -> dict[str, Any]:
    """A part of a token as JSON: 0 is the header, 1 the claims."""
    try:
        text = token.split(".", 2)[part]
        decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value = json.loads(decoded.decode(), object_pairs_hook=_each_once)
    except Refused:
        raise
    except Exception:  # whatever a hostile token does to the parser, it is no token
        raise Refused("the token can't be read") from None
    if not isinstance(value, dict):
        raise Refused("the token can't be read")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two with one name, others may go by the first where we would go by the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("the token has a name twice")
    return found


def _sub(claims: dict[str, Any]) -> str:
    sub = claims["sub"]
    if not isinstance(sub, str) or not 0 < len(sub) <= _SUB_MAX or not sub.isprintable():
        raise Refused(f"the token's sub must be 1 to {_SUB_MAX} printable characters")
    return sub


def _roles(claims: dict[str, Any]) -> frozenset[Role]:
    """The roles that we know; others may be meant for somebody else."""
    names = claims.get("roles", [])
    if not _are_texts(names) or len(names) > _ROLES_MAX:
        raise Refused("the token's roles must be a list of names")
    return frozenset(Role(name) for name in names if name in _ROLE_NAMES)


def _queues(claims: dict[str, Any]) -> tuple[str, ...] | None:
    if "queues" not in claims:
        return None
    globs = claims["queues"]
    if not _are_texts(globs):
        raise Refused("the token's queues must be a list of names or globs")
    if not all(glob.isascii() and glob.isprintable() for glob in globs):
        raise Refused("the token's queues must be of printable ASCII, as the names of queues are")
    if limit := too_much(globs):
        raise Refused(f"the token's queues are too much: {limit}")
    return tuple(globs)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
