"""`penstock token`: makes the tokens that callers show to the API."""

import re
from typing import IO, TYPE_CHECKING, Any

import click

from penstock import clock
from penstock.domain.caller import Role, too_much

if TYPE_CHECKING:
    from penstock.keys import PrivateKey
    from penstock.settings import Auth

DAY_S = 24 * 3600

# As the door takes it (api/auth.py), and as queues may be named.
SUB_MAX = 255
GLOB = re.compile(r"([a-z0-9_.*?-]|\[!?[a-z0-9_.-]+\])+")


@click.command()
@click.option("--sub", default="cli", show_default=True, help="Whom the token names.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    default=[Role.SUBMITTER.value],
    show_default=True,
    help="What the token allows; may be given several times.",
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="GLOB",
    help="Queues that the token opens, such as mail-*; may be given several times.  [default: all]",
)
@click.option(
    "--ttl-s",
    default=DAY_S,
    show_default=True,
    type=click.IntRange(min=1),
    help="Seconds until the token ends.",
)
@click.option(
    "--key",
    "key_file",
    type=click.File("rb"),
    help="Private key to sign with (PEM: RSA, EC on P-256, Ed25519).  [default: auth.jwt_secret]",
)
@click.option("--kid", help="Name of that key, as auth.public_keys has it.")
def token(ttl_s: int, key_file: IO[bytes] | None, kid: str | None, **whom: Any) -> None:
    """Print a JWT for the API, signed with auth.jwt_secret or a private key."""
    _demand_good(whom["sub"], whom["queues"])
    key = _key(key_file, kid)
    auth = _auth(key)
    if ttl_s > auth.token_max_age_s:
        raise click.BadParameter(
            f"the server takes {auth.token_max_age_s} at most (auth.token_max_age_s)",
            param_hint="--ttl-s",
        )
    claims: dict[str, Any] = {"sub": whom["sub"], "roles": list(whom["roles"])}
    if whom["queues"]:
        claims["queues"] = list(whom["queues"])
    click.echo(mint(auth, claims, ttl_s, key))


def _demand_good(sub: str, queues: tuple[str, ...]) -> None:
    """What no server would take, or what could never open a queue."""
    if not 0 < len(sub) <= SUB_MAX or not sub.isprintable():
        raise click.BadParameter(f"must be 1 to {SUB_MAX} printable characters", param_hint="--sub")
    if limit := too_much(queues):
        raise click.BadParameter(f"too much: {limit}", param_hint="--queue")
    for glob in queues:
        if not GLOB.fullmatch(glob):
            raise click.BadParameter(
                f"{glob!r} can't match a queue: write a name with * for any characters, "
                "? for one, [abc] for one of these",
                param_hint="--queue",
            )


def _key(file: IO[bytes] | None, kid: str | None) -> "PrivateKey | None":
    from penstock import keys

    if kid is not None and (file is None or not keys.is_kid(kid)):
        raise click.BadParameter(
            "goes with --key, and is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'", param_hint="--kid"
        )
    try:
        return keys.of_private_pem(file.read(), kid) if file is not None else None
    except keys.KeyRefused as refused:
        raise click.BadParameter(f"it {refused}", param_hint="--key") from None


def _auth(key: "PrivateKey | None") -> "Auth":
    """What the server demands of a token. With a key, it need not be configured here."""
    import json

    from penstock.cli.development import with_found_secret, with_kept_secret
    from penstock.settings import Auth, environment, given_keys, load_section

    if key is None:
        return load_section(Auth, with_found_secret(environment()))
    environ = with_kept_secret(environment())
    if not {"auth.jwt_secret", "auth.public_keys"} & given_keys(environ):
        entry = {"kid": key.kid, "pem": key.public_pem()}
        environ = {**environ, "PENSTOCK_AUTH__PUBLIC_KEYS": json.dumps([entry])}
    return load_section(Auth, environ)


def mint(auth: "Auth", claims: dict[str, Any], ttl_s: int, key: "PrivateKey | None" = None) -> str:
    """A token with these claims that ends in `ttl_s` seconds; without a key, of the secret."""
    import jwt

    from penstock.settings import SettingsError

    now = int(clock.wall_s())
    whole = {**claims, "iat": now, "exp": now + ttl_s}
    if auth.issuer is not None:
        whole["iss"] = auth.issuer
    if auth.audience is not None:
        whole["aud"] = auth.audience
    headers: dict[str, Any] = {"typ": auth.token_type or "JWT"}
    if key is not None:
        if key.kid is not None:
            headers["kid"] = key.kid
        return jwt.encode(whole, key.material, key.algorithm, headers)
    if auth.jwt_secret is None:
        raise SettingsError(
            "auth.jwt_secret is not set, and public keys can't sign: give a private key by --key"
        )
    return jwt.encode(whole, auth.jwt_secret.get_secret_value(), "HS256", headers)
