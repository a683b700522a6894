"""Who asks: a bearer token becomes a `Caller`, or 401.

In: the request's headers. Out: the caller with roles and queues. Always holds: the algorithm
comes from our key and never from the token; a token is checked once and then known by its text
until it expires (a check costs 30 us); no token and no part of one is logged or answered.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
from multidict import MultiMapping

from penstock import clock
from penstock.api.problems import Problem
from penstock.domain.caller import Caller, Role

_SEEN_MAX = 10_000  # tokens that we remember
_SUB_MAX = 255
_GLOBS_MAX = 100
_GLOB_CHARS_MAX = 100
_ROLES_MAX = 100
_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_ROLE_NAMES = frozenset(Role)

# Headers by which a token would bring or point to its own key, or change what is signed.
_FOREIGN_KEYS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "zip", "b64"})


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm that it is for."""

    algorithm: str
    material: str | bytes


# Finds the key for a token's `kid`. A set of public keys is another such function; where it is
# fetched from afar, its miss is the place to fetch again.
FindKey = Callable[[str | None], Key | None]


def shared_secret(secret: str) -> FindKey:
    """HS256 with one secret for all tokens, whatever their `kid`."""
    key = Key("HS256", secret)
    return lambda _kid: key


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must keep to. `issuer` and `audience` are checked where they are set."""

    issuer: str | None = None
    audience: str | None = None
    token_max_age_s: int = 400 * 24 * 3600
    leeway_s: int = 30


class Refused(Exception):
    """Why a token is not accepted; the text is for the caller."""


class Verifier:
    """Turns bearer tokens into callers."""

    def __init__(
        self, find_key: FindKey, rules: TokenRules, now_s: Callable[[], float] = clock.wall_s
    ) -> None:
        self._find_key = find_key
        self._rules = rules
        self._now_s = now_s
        self._seen: dict[str, tuple[Caller, int]] = {}

    def caller(self, headers: MultiMapping[str]) -> Caller:
        """The caller whom the one Authorization header names. Raises a 401 problem."""
        try:
            token = _bearer(headers)
            known = self._seen.get(token)
            if known is not None and self._now_s() < known[1]:
                return known[0]
            return self._check(token)
        except Refused as refused:
            raise Problem(
                "unauthenticated", str(refused), headers={"WWW-Authenticate": "Bearer"}
            ) from None

    def _check(self, token: str) -> Caller:
        self._seen.pop(token, None)
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
        try:
            header = jwt.get_unverified_header(token)
        except Exception:  # whatever a hostile token does to the parser, it is no token
            raise Refused("the token can't be read") from None
        kid, typ = header.get("kid"), header.get("typ", "JWT")
        if not _FOREIGN_KEYS.isdisjoint(header):
            raise Refused("the token has a header that we don't accept")
        if not isinstance(typ, str) or typ.lower() not in _TYPES:
            raise Refused("the token is of another type")
        if kid is not None and not (isinstance(kid, str) and _KID.fullmatch(kid)):
            raise Refused("the token's kid has not the right form")
        key = self._find_key(kid)
        if key is None:
            raise Refused("the token's key is unknown")
        return key

    def _claims(self, token: str, key: Key) -> dict[str, Any]:
        rules = self._rules
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                issuer=rules.issuer,
                audience=rules.audience,
                leeway=rules.leeway_s,
                options={
                    "require": ["exp", "sub"],
                    "verify_iat": False,  # says nothing about validity, and clocks differ
                    "verify_aud": rules.audience is not None,
                },
            )
        except jwt.ExpiredSignatureError:
            raise Refused("the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise Refused("the token isn't valid yet") from None
        except Exception:
            raise Refused("the token isn't valid here") from None

    def _remember(self, token: str, caller: Caller, exp: int) -> None:
        while len(self._seen) >= _SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[token] = (caller, exp)


def _bearer(headers: MultiMapping[str]) -> str:
    found = headers.getall("Authorization", [])
    if len(found) != 1:
        raise Refused("send one Authorization header: Bearer <token>")
    scheme, _, token = found[0].partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused("send the token as: Authorization: Bearer <token>")
    return token


def _sub(claims: dict[str, Any]) -> str:
    sub = claims["sub"]
    if not isinstance(sub, str) or not 0 < len(sub) <= _SUB_MAX or not sub.isprintable():
        raise Refused(f"the token's sub must be 1 to {_SUB_MAX} printable characters")
    return sub


def _roles(claims: dict[str, Any]) -> frozenset[Role]:
    """The roles that we know; others may be meant for somebody else."""
    names = claims.get("roles", [])
    if not _are_texts(names, _ROLES_MAX, _SUB_MAX):
        raise Refused("the token's roles must be a list of names")
    return frozenset(Role(name) for name in names if name in _ROLE_NAMES)


def _queues(claims: dict[str, Any]) -> tuple[str, ...] | None:
    if "queues" not in claims:
        return None
    globs = claims["queues"]
    if not _are_texts(globs, _GLOBS_MAX, _GLOB_CHARS_MAX):
        raise Refused("the token's queues must be a list of names or globs")
    return tuple(globs)


def _are_texts(value: Any, items_max: int, chars_max: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= items_max
        and all(isinstance(item, str) and len(item) <= chars_max for item in value)
    )
