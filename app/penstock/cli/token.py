"""`penstock token`: makes the tokens that callers show to the API."""

import re
from typing import TYPE_CHECKING, Any

import click

from penstock import clock
from penstock.domain.caller import Role

if TYPE_CHECKING:
    from penstock.settings import Auth

DAY_S = 24 * 3600

# As the door takes them (api/auth.py), and as queues may be named.
SUB_MAX = 255
GLOBS_MAX = 100
GLOB_MAX = 100
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
def token(sub: str, roles: tuple[str, ...], queues: tuple[str, ...], ttl_s: int) -> None:
    """Print a JWT for the API, signed with auth.jwt_secret."""
    from penstock.cli.development import with_found_secret
    from penstock.settings import Auth, environment, load_section

    _demand_good(sub, queues)
    auth = load_section(Auth, with_found_secret(environment()))
    if ttl_s > auth.token_max_age_s:
        raise click.BadParameter(
            f"the server takes {auth.token_max_age_s} at most (auth.token_max_age_s)",
            param_hint="--ttl-s",
        )
    claims: dict[str, Any] = {"sub": sub, "roles": list(roles)}
    if queues:
        claims["queues"] = list(queues)
    click.echo(mint(auth, claims, ttl_s))


def _demand_good(sub: str, queues: tuple[str, ...]) -> None:
    """What no server would take, or what could never open a queue."""
    if not 0 < len(sub) <= SUB_MAX or not sub.isprintable():
        raise click.BadParameter(f"must be 1 to {SUB_MAX} printable characters", param_hint="--sub")
    for glob in queues:
        if not GLOB.fullmatch(glob) or len(glob) > GLOB_MAX:
            raise click.BadParameter(
                f"{glob!r} can't match a queue: write a name with * for any characters, "
                f"? for one, [abc] for one of these; {GLOB_MAX} characters at most",
                param_hint="--queue",
            )
    if len(queues) > GLOBS_MAX:
        raise click.BadParameter(f"{GLOBS_MAX} at most", param_hint="--queue")


def mint(auth: "Auth", claims: dict[str, Any], ttl_s: int) -> str:
    """A token with these claims that ends in `ttl_s` seconds."""
    import jwt

    now = int(clock.wall_s())
    whole = {**claims, "iat": now, "exp": now + ttl_s}
    if auth.issuer is not None:
        whole["iss"] = auth.issuer
    if auth.audience is not None:
        whole["aud"] = auth.audience
    return jwt.encode(whole, auth.jwt_secret.get_secret_value(), algorithm="HS256")
