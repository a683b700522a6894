"""Which keys are taken, and what is said of the others."""

import base64
import json
from contextlib import suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.dsa import generate_private_key as generate_dsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from penstock import keys
from penstock.keys import KeyRefused
from tests.support.tokens import ALGORITHMS, ec_key, private_pem, public_pem, rsa_key, signer

EACH = pytest.mark.parametrize("algorithm", ALGORITHMS)
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def jwk(algorithm: str, **members: Any) -> dict[str, Any]:
    return signer(algorithm).jwk(**{"alg": algorithm, **members})


def jwks(*members: Any) -> str:
    return json.dumps({"keys": members})


def why_not(text: str) -> str:
    """Why a text is refused, and that nothing of it is in the refusal."""
    with pytest.raises(KeyRefused) as refused:
        keys.of_jwks(text) if text.lstrip().startswith("{") else keys.of_pem(text)
    said = str(refused.value)
    assert not any(line in said for line in text.splitlines() if len(line) > 40)
    return said


@EACH
def test_a_public_pem_is_a_key_of_the_one_algorithm_of_its_kind(algorithm: str) -> None:
    key = keys.of_pem(signer(algorithm).public_pem, "k")
    assert (key.algorithm, key.kid) == (algorithm, "k")


def test_the_older_form_of_rsa_keys_is_taken_too() -> None:
    public = rsa_key().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
    assert keys.of_pem(pem).material == public


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (public_pem(rsa_key(1024)), "RSA with 1024 bits take 2048"),
        (public_pem(ec_key(SECP384R1())), "EC on secp384r1 P-256"),
        (public_pem(ec_key(SECP256K1())), "EC on secp256k1 P-256"),
        (public_pem(Ed448PrivateKey.generate()), "another kind Ed25519"),
        (public_pem(X25519PrivateKey.generate()), "another kind Ed25519"),
        (public_pem(generate_dsa(2048)), "another kind"),
        (signer("RS256").private_pem, "private key openssl pkey -pubout"),
        (signer("EdDSA").private_pem, "private key"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n", "private key"),
        (CERTIFICATE, "certificate openssl x509 -pubkey"),
        (signer("EdDSA").public_pem * 2, "several keys entry"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ", "no public key in PEM form"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key in PEM"),
        ("", "no public key in PEM form"),
        ("\x00é", "no public key in PEM form"),
    ],
)
def test_a_pem_that_we_would_not_trust_is_refused(text: str, words: str) -> None:
    said = why_not(text)
    for word in words.split():
        assert word in said


def test_a_jwk_set_has_the_kids_of_its_keys() -> None:
    found = keys.of_jwks(jwks(*(jwk(a, kid=f"k-{a}", use="sig") for a in ALGORITHMS)))
    assert [(key.algorithm, key.kid) for key in found] == [(a, f"k-{a}") for a in ALGORITHMS]
    assert [key.material for key in found] == [signer(a).public().material for a in ALGORITHMS]


@EACH
def test_a_jwk_alone_and_one_without_alg_and_kid_are_taken(algorithm: str) -> None:
    (key,) = keys.of_jwks(json.dumps(jwk(algorithm, alg=None, key_ops=["verify"])))
    assert key == signer(algorithm).public()


def rsa_jwk(bits: int) -> dict[str, Any]:
    to_jwk: Any = jwt.get_algorithm_by_name("RS256").to_jwk
    whole: dict[str, Any] = to_jwk(rsa_key(bits).public_key(), as_dict=True)
    return whole


def okp(curve: str, size: int) -> dict[str, str]:
    x = base64.urlsafe_b64encode(b"\x01" * size).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": curve, "x": x}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([rsa_jwk(1024)], "keys[0] RSA with 1024 bits"),
        ([jwk("RS256"), rsa_jwk(1024)], "keys[1] RSA with 1024 bits"),
        ([jwk("RS256", use="enc")], "keys[0] (use) leave it out"),
        ([jwk("RS256", key_ops=["encrypt"])], "(key_ops)"),
        ([jwk("RS256", key_ops=5)], "(key_ops)"),
        ([jwk("RS256", key_ops=None, use=5)], "(use)"),
        ([{"kty": "oct", "k": "aGVsbG8", "alg": "HS256"}], "shared secret auth.jwt_secret"),
        ([{"kty": "oct"}], "shared secret"),
        ([jwk("RS256", k="aGVsbG8")], "private key"),
        ([jwk("EdDSA", d="aGVsbG8")], "private key public members"),
        ([jwk("RS256", alg="RS512")], "(alg) RS256"),
        ([jwk("RS256", alg="HS256")], "(alg) RS256"),
        ([jwk("RS256", alg="RSA-OAEP")], "(alg) RS256"),
        ([jwk("ES256", alg=5)], "(alg) ES256"),
        ([jwk("ES256", kid="a b")], "kid"),
        ([jwk("ES256", kid=5)], "kid"),
        ([jwk("ES256", crv="P-384")], "can't be read"),
        ([jwk("ES256", y="AA")], "can't be read"),
        ([jwk("ES256", x=5)], "can't be read"),
        ([jwk("RS256", n=None)], "can't be read"),
        ([jwk("RS256", e="AQ")], "can't be read"),
        ([okp("Ed448", 57)], "another kind"),
        ([okp("X25519", 32)], "can't be read"),
        ([{"kty": "PQC"}], "another kind"),
        ([{"kty": []}], "another kind"),
        ([{}], "another kind"),
        (["x"], "keys[0] no JWK"),
        ([None], "keys[0] no JWK"),
        ([], "no JWK set"),
    ],
)
def test_a_jwk_that_we_would_not_trust_is_refused_by_its_place(
    members: list[Any], words: str
) -> None:
    said = why_not(jwks(*members))
    for word in words.split():
        assert word in said


@pytest.mark.parametrize("text", ["{", '{"keys": 5}', '{"keys": {}}', '{"a": ' * 5000])
def test_what_is_no_jwk_set_is_refused(text: str) -> None:
    assert why_not(text)


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_keys_or_a_refusal(text: str) -> None:
    for read in (keys.of_pem, keys.of_jwks):
        with pytest.raises(KeyRefused):
            read(text)


@EACH
def test_a_private_pem_signs_what_its_public_half_checks(algorithm: str) -> None:
    key = keys.of_private_pem(signer(algorithm).private_pem.encode(), "k")
    assert (key.algorithm, key.kid) == (algorithm, "k")
    assert key.public_pem() == signer(algorithm).public_pem
    made = jwt.encode({"sub": "ada"}, key.material, key.algorithm)
    public = keys.of_pem(key.public_pem())
    assert jwt.decode(made, public.material, [public.algorithm]) == {"sub": "ada"}


def with_passphrase() -> str:
    key: Any = ec_key()
    encryption = BestAvailableEncryption(b"hush")
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem.decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (private_pem(rsa_key(1024)), "RSA with 1024 bits"),
        (private_pem(ec_key(SECP384R1())), "EC on secp384r1"),
        (private_pem(Ed448PrivateKey.generate()), "another kind"),
        (with_passphrase(), "passphrase"),
        (signer("EdDSA").public_pem, "no private key in PEM form"),
        ("", "no private key in PEM form"),
    ],
)
def test_a_private_key_that_no_server_would_trust_is_refused(text: str, words: str) -> None:
    with pytest.raises(KeyRefused, match=words):
        keys.of_private_pem(text.encode())


def test_of_a_published_set_what_is_not_for_tokens_is_passed_over() -> None:
    good, other = signer("ES256").jwk(kid="good"), signer("ES256", 1).jwk
    members = [
        other(kid="enc", use="enc"),
        other(kid="sealing", key_ops=["encrypt"]),
        other(kid="../x"),
        other(kid="alg", alg="ES384"),
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["RSA"]},
        {"kty": "EC", "crv": "P-256", "x": 5},
        good,
        other(kid="good"),
        None,
        5,
    ]
    found, passed_over = keys.of_published(json.dumps({"keys": members}).encode(), 20)
    assert found == (keys.of_jwks(json.dumps(good))[0],)
    assert len(passed_over) == len(members) - 1
    assert "keys[8] has the kid and algorithm of one before it" in passed_over
    assert "c2VjcmV0" not in repr(passed_over)


def test_a_published_set_may_be_empty_and_is_bounded() -> None:
    assert keys.of_published(b'{"keys": []}', 1) == ((), ())
    with pytest.raises(keys.KeyRefused, match="has 2 keys: 1 are taken"):
        keys.of_published(b'{"keys": [{}, {}]}', 1)


@given(st.binary() | st.text().map(str.encode))
def test_no_published_bytes_make_anything_but_keys_or_a_refusal(data: bytes) -> None:
    with suppress(keys.KeyRefused):
        keys.of_published(data, 10)
