"""Keys of tokens: PEM or JWK text in, keys with their algorithm out.

Always holds: the kind of a key decides its one algorithm, a token never does; a key that is too
weak, or that isn't public where a public one is wanted, is refused; no part of a key is in a
refusal.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

Algorithm = Literal["RS256", "ES256", "EdDSA"]
PublicMaterial = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
PrivateMaterial = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

KID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
RSA_MIN_BITS, RSA_MAX_BITS = 2048, 8192

_KID = re.compile(KID_PATTERN.removesuffix("$") + r"\Z")
_OF_KTY: dict[Any, Algorithm] = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
_NO_SET = 'is no JWK set: {"keys": [...]}'
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class KeyRefused(ValueError):
    """Why a key can't be used; the text is for the operator and holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a token is checked with. `kid` is the name by which tokens ask for it."""

    algorithm: Algorithm
    material: PublicMaterial
    kid: str | None = None


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What a token is signed with; it names `kid`."""

    algorithm: Algorithm
    material: PrivateMaterial
    kid: str | None = None

    def public_pem(self) -> str:
        """Its public half."""
        public = self.material.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def is_kid(value: object) -> bool:
    """Whether it has the form that a `kid` must have."""
    return isinstance(value, str) and _KID.match(value) is not None


def of_pem(text: str, kid: str | None = None) -> PublicKey:
    """The public key of a PEM. Raises KeyRefused."""
    if "PRIVATE KEY" in text:
        raise KeyRefused(
            "holds a private key: give its public half (openssl pkey -pubout) "
            "and leave the private one with whoever signs"
        )
    if "BEGIN CERTIFICATE" in text:
        raise KeyRefused("holds a certificate: give its key (openssl x509 -pubkey -noout)")
    if text.count("-----BEGIN ") > 1:
        raise KeyRefused("holds several keys: make an entry of each")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused("is no public key in PEM form (-----BEGIN PUBLIC KEY-----)") from None
    return _public(key, kid)


def of_jwks(text: str) -> tuple[PublicKey, ...]:
    """The public keys of a JWK set, or of one JWK (RFC 7517). Raises KeyRefused."""
    whole = _json(text)
    members = whole.get("keys", [whole]) if isinstance(whole, dict) else None
    if not isinstance(members, list) or not members:
        raise KeyRefused(_NO_SET)
    return tuple(_of_member(i, member) for i, member in enumerate(members))


def of_published(data: bytes, keys_max: int) -> tuple[tuple[PublicKey, ...], tuple[str, ...]]:
    """The keys of a JWK set that others publish, and why each of the rest is passed over: such a
    set holds keys for other things, too. It may be empty. Raises KeyRefused where it is no set."""
    whole = _json(data)
    members = whole.get("keys") if isinstance(whole, dict) else None
    if not isinstance(members, list):
        raise KeyRefused(_NO_SET)
    if len(members) > keys_max:
        raise KeyRefused(f"has {len(members)} keys: {keys_max} are taken")
    taken: dict[tuple[str, str | None], PublicKey] = {}
    passed_over = []
    for i, member in enumerate(members):
        try:
            key = _of_member(i, member)
        except KeyRefused as refused:
            passed_over.append(str(refused))
            continue
        if taken.setdefault((key.algorithm, key.kid), key) is not key:
            passed_over.append(f"keys[{i}] has the kid and algorithm of one before it")
    return tuple(taken.values()), tuple(passed_over)


def of_private_pem(data: bytes, kid: str | None = None) -> PrivateKey:
    """The private key of a PEM without a passphrase. Raises KeyRefused."""
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise KeyRefused("has a passphrase: give it without (openssl pkey -in FILE)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused("is no private key in PEM form") from None
    if not isinstance(key, PrivateMaterial):
        raise KeyRefused(_FOREIGN)
    return PrivateKey(_public(key.public_key(), kid).algorithm, key, kid)


_FOREIGN = "is of another kind: RSA, EC on P-256 and Ed25519 are supported"


def _public(key: object, kid: str | None) -> PublicKey:
    """The key with the one algorithm that its kind has here."""
    match key:
        case RSAPublicKey():
            if not RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS:
                raise KeyRefused(
                    f"is RSA with {key.key_size} bits: "
                    f"take {RSA_MIN_BITS} to {RSA_MAX_BITS}, or Ed25519"
                )
            return PublicKey("RS256", key, kid)
        case EllipticCurvePublicKey():
            if not isinstance(key.curve, SECP256R1):
                raise KeyRefused(f"is EC on {key.curve.name}: ES256 needs P-256 (secp256r1)")
            return PublicKey("ES256", key, kid)
        case Ed25519PublicKey():
            return PublicKey("EdDSA", key, kid)
        case _:
            raise KeyRefused(_FOREIGN)


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise KeyRefused("is no JSON") from None


def _of_member(index: int, jwk: Any) -> PublicKey:
    name = f"keys[{index}]"
    if not isinstance(jwk, dict):
        raise KeyRefused(f"{name} is no JWK")
    try:
        _demand_for_checking(jwk)
        return _of_jwk(jwk)
    except KeyRefused as refused:
        raise KeyRefused(f"{name} {refused}") from None


def _demand_for_checking(jwk: dict[str, Any]) -> None:
    """Raises KeyRefused where the JWK says that it is for something else."""
    if jwk.get("kty") == "oct":
        raise KeyRefused("is a shared secret (kty oct): that is auth.jwt_secret, and no public key")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeyRefused("is a private key: publish its public members only")
    if jwk.get("use", "sig") != "sig":
        raise KeyRefused("isn't for signatures (use): leave it out")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyRefused("isn't for checking signatures (key_ops): leave it out")
    if jwk.get("kid") is not None and not is_kid(jwk["kid"]):
        raise KeyRefused("has a kid that isn't 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'")


def _of_jwk(jwk: dict[str, Any]) -> PublicKey:
    kty = jwk.get("kty")
    algorithm = _OF_KTY.get(kty) if isinstance(kty, str) else None
    if algorithm is None:
        raise KeyRefused(_FOREIGN)
    try:
        material = jwt.PyJWK(jwk, algorithm).key
    except Exception:  # whatever is in the file; the library's text may hold the key
        raise KeyRefused("can't be read") from None
    key = _public(material, jwk.get("kid"))
    if jwk.get("alg", key.algorithm) != key.algorithm:
        raise KeyRefused(f"is for another algorithm (alg): here it can only be {key.algorithm}")
    return key
