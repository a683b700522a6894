"""Tokens of every algorithm, also such as no library would make."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from penstock import keys
from penstock.keys import Algorithm, PublicKey
from tests.support.replica import SECRET

ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")


@dataclass(frozen=True)
class Signer:
    """A key pair, or (HS256) a secret; `sign` signs anything."""

    algorithm: str
    sign: Callable[[bytes], bytes]
    private_pem: str = ""
    public_pem: str = ""

    def public(self, kid: str | None = None) -> PublicKey:
        return keys.of_pem(self.public_pem, kid)

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public key as a JWK; a member given as None is left out."""
        to_jwk: Any = jwt.get_algorithm_by_name(self.algorithm).to_jwk
        whole = {**to_jwk(self.public().material, as_dict=True), **members}
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, claims: Any, **header: Any) -> str:
        """A token of these claims; a header given as None is left out."""
        whole = {"alg": self.algorithm, "typ": "JWT", **header}
        return self.forged({n: v for n, v in whole.items() if v is not None}, claims)

    def forged(self, header: Any, claims: Any) -> str:
        """Any two parts, rightly signed; bytes go in as they are, all else as JSON."""
        head, body = (
            b64(part if isinstance(part, bytes) else json.dumps(part).encode())
            for part in (header, claims)
        )
        return f"{head}.{body}.{b64(self.sign(f'{head}.{body}'.encode()))}"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def secret_signer(secret: str | bytes = SECRET) -> Signer:
    key = secret if isinstance(secret, bytes) else secret.encode()
    return Signer("HS256", lambda text: hmac.new(key, text, hashlib.sha256).digest())


def signer(algorithm: str, number: int = 0) -> Signer:
    """The same one for the same number, since keys take long to make."""
    return _signer(algorithm, number)


@cache
def _signer(algorithm: str, _number: int) -> Signer:
    if algorithm == "HS256":
        return secret_signer()
    match algorithm:
        case "RS256":
            key: Any = rsa_key()
        case "ES256":
            key = ec_key()
        case _:
            key = Ed25519PrivateKey.generate()
    return Signer(algorithm, signing(key), private_pem(key), public_pem(key))


def rsa_key(bits: int = 2048) -> RSAPrivateKey:
    return generate_rsa(65537, bits)


def ec_key(curve: EllipticCurve | None = None) -> EllipticCurvePrivateKey:
    return generate_private_key(curve or SECP256R1())


def signing(key: Any) -> Callable[[bytes], bytes]:
    """How JWS (RFC 7518 and 8037) signs with this kind of key."""
    if isinstance(key, RSAPrivateKey):
        return lambda text: key.sign(text, PKCS1v15(), SHA256())
    if isinstance(key, Ed25519PrivateKey):
        return key.sign

    def es256(text: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(text, ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return es256


def private_pem(key: Any) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()
