"""Public keys on the server's side, private ones on that of `penstock token`."""

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path

import jwt
import pytest

from tests.cli.command import SECRET, Servers, penstock, running, the_one_line
from tests.support.tokens import ALGORITHMS, ec_key, private_pem, rsa_key, signer

PUBLIC_KEYS = "PENSTOCK_AUTH__PUBLIC_KEYS"
EACH = pytest.mark.parametrize("algorithm", ALGORITHMS)


def private_file(directory: Path, algorithm: str) -> str:
    file = directory / f"{algorithm}.pem"
    file.write_text(signer(algorithm).private_pem)
    return str(file)


def pems(*algorithms: str) -> dict[str, str]:
    return {PUBLIC_KEYS: json.dumps([{"pem": signer(a).public_pem} for a in algorithms])}


@EACH
def test_a_private_key_signs_a_token_and_needs_no_settings(directory: Path, algorithm: str) -> None:
    done = penstock("token", "--key", private_file(directory, algorithm), "--kid", "k")
    assert (done.returncode, done.stderr) == (0, "")
    made = done.stdout.strip()
    assert jwt.get_unverified_header(made) == {"alg": algorithm, "typ": "JWT", "kid": "k"}
    material = signer(algorithm).public().material
    assert jwt.decode(made, material, [algorithm])["sub"] == "cli"


def test_a_private_key_goes_before_the_secret_and_heeds_the_settings(directory: Path) -> None:
    environ = {
        "PENSTOCK_AUTH__JWT_SECRET": SECRET,
        "PENSTOCK_AUTH__AUDIENCE": "jobs",
        "PENSTOCK_AUTH__TOKEN_TYPE": "at+jwt",
        "PENSTOCK_AUTH__TOKEN_MAX_AGE_S": "60",
    }
    words = ("token", "--key", private_file(directory, "ES256"))
    made = penstock(*words, "--ttl-s", "60", environ=environ).stdout.strip()
    assert jwt.get_unverified_header(made) == {"alg": "ES256", "typ": "at+jwt"}
    material = signer("ES256").public().material
    assert jwt.decode(made, material, ["ES256"], audience="jobs")["sub"] == "cli"
    assert "auth.token_max_age_s" in penstock(*words, environ=environ).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (private_pem(rsa_key(1024)), "RSA with 1024 bits"),
        (signer("EdDSA").public_pem, "no private key"),
        ("hush", "no private key"),
    ],
)
def test_a_key_that_can_not_sign_is_told(directory: Path, text: str, words: str) -> None:
    file = directory / "key"
    file.write_text(text)
    done = penstock("token", "--key", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert not any(line in done.stderr for line in text.splitlines() if "-----" not in line)


def test_a_kid_is_of_a_key(directory: Path) -> None:
    environ = {"PENSTOCK_AUTH__JWT_SECRET": SECRET}
    file = private_file(directory, "EdDSA")
    for words in (("--kid", "k"), ("--key", file, "--kid", "a b"), ("--key", file, "--kid", "")):
        done = penstock("token", *words, environ=environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--kid" in done.stderr


def test_public_keys_alone_can_not_sign() -> None:
    told = the_one_line(penstock("token", environ=pems("EdDSA")), 2)
    assert "auth.jwt_secret is not set" in told
    assert "--key" in told


def test_config_shows_and_checks_public_keys(servers: Servers, directory: Path) -> None:
    public = directory / "public.pem"
    public.write_text(signer("RS256").public_pem)
    entries = [{"kid": "mine", "file": str(public)}]
    environ = {**servers.environ, PUBLIC_KEYS: json.dumps(entries)}
    environ["PENSTOCK_DEV__DIR"] = str(directory)  # whoever runs this may not write to /
    del environ["PENSTOCK_AUTH__JWT_SECRET"]
    assert penstock("config", "check", environ=environ).returncode == 0
    shown = json.loads(penstock("config", "show", "-o", "json", environ=environ).stdout)
    values = {setting["key"]: setting["value"] for setting in shown}
    assert values["auth.public_keys"] == [f"RS256 mine ({public})"]
    assert values["auth.jwt_secret"] is None

    public.write_text(private_pem(ec_key()))
    for command in (("config", "check"), ("serve",), ("dev",)):
        told = the_one_line(penstock(*command, environ=environ), 2)
        assert f"{public} holds a private key" in told


def status(url: str, bearer: str) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bearer}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_server_with_public_keys_only_takes_their_tokens_and_no_other(
    servers: Servers, directory: Path
) -> None:
    members = [signer("RS256", n).jwk(kid=f"k{n}") for n in range(2)]
    (directory / "jwks.json").write_text(json.dumps({"keys": members}))
    entries = [{"file": str(directory / "jwks.json")}, {"pem": signer("EdDSA").public_pem}]
    environ = {**servers.environ, PUBLIC_KEYS: json.dumps(entries)}
    del environ["PENSTOCK_AUTH__JWT_SECRET"]
    words = ("token", "--role", "viewer")
    rsa, eddsa, es256 = (private_file(directory, a) for a in ("RS256", "EdDSA", "ES256"))
    secret = {"PENSTOCK_AUTH__JWT_SECRET": SECRET}
    asked = [
        (penstock(*words, "--key", rsa, "--kid", "k0"), 200),
        (penstock(*words, "--key", rsa, "--kid", "k1"), 401),
        (penstock(*words, "--key", rsa), 401),
        (penstock(*words, "--key", eddsa), 200),
        (penstock(*words, "--key", es256), 401),
        (penstock(*words, environ=secret), 401),
    ]
    assert penstock("migrate", environ=environ).returncode == 0
    with running("serve", environ=environ, directory=directory) as server:
        url = server.says(r"ready on (\S+)")[1]
        for done, expected in asked:
            assert status(f"{url}/v1/queues", done.stdout.strip()) == expected
        assert server.ends(signal.SIGTERM) == 0
