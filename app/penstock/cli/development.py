"""`penstock dev`: a whole Penstock on this machine, with servers and data of its own.

In: nothing but the settings. Out: a server to try things on, told by a banner on stderr. All its
data is in dev.dir, and a second run finds it. A server that is given by postgres.dsn or redis.url
is used as it is. If we die here, the embedded servers end with us (`dev.process`).
"""

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.doors import explained
from penstock.cli.exported import exported
from penstock.cli.looping import run
from penstock.cli.serve import Serve, start
from penstock.cli.token import DAY_S, mint
from penstock.domain.errors import WrongSetting

if TYPE_CHECKING:
    from penstock.settings import Settings

ENVIRONMENT = "PENSTOCK_ENV"
SECRET_FILE = "PENSTOCK_AUTH__JWT_SECRET_FILE"
HOOKS_FILE = "PENSTOCK_WEBHOOK__SECRETS_FILE"
# Where the servers will be that we start; for a look at all settings before we do.
STAND_INS = {
    "postgres.dsn": ("PENSTOCK_POSTGRES__DSN", "postgres://127.0.0.1"),
    "redis.url": ("PENSTOCK_REDIS__URL", "redis://127.0.0.1"),
}
TOKEN_TTL_S = 30 * DAY_S

BANNER = """
  Penstock is ready on {url}

  Run a job and see its result:

    curl -sS {url}/v1/jobs \\
      -H 'Authorization: Bearer {token}' \\
      -H 'Content-Type: application/json' \\
      -H 'Prefer: wait=10' \\
      -d '{{"kind": "echo", "payload": {{"hello": "world"}}}}'

  Admin token, good for {days} days:

    {token}

  Data: {data}
  Other commands, on the same servers: . {data}/env
  Ctrl-C stops everything and keeps the data.
"""


@click.command()
@click.pass_obj
def dev(server: Serve) -> None:
    """Run everything on this machine: PostgreSQL, Redis and the server."""
    from penstock.settings import Dev, environment, load_section
    from penstock.settings.watched import source_of
    from penstock.store.migrate import migrate

    given = {ENVIRONMENT: "development", **environment()}
    directory = Path(load_section(Dev, given).dir).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        given = dict(_with_secrets(given, directory))
    except OSError as error:
        raise WrongSetting(
            f"dev.dir, {directory}, can't be used: {error.strerror or error}; "
            "set PENSTOCK_DEV__DIR to a directory that you may write to"
        ) from error
    _check(given)
    with ExitStack() as stack:
        found = _with_servers(given, directory, stack)
        source = source_of(found)
        settings = source.load()
        dsn = settings.postgres.address
        with explained(dsn):
            run(migrate(dsn))
        stack.enter_context(exported(found, directory))
        start(server, settings, source, _banner(settings, directory))
        click.echo("penstock: stopping the embedded servers", err=True)


def with_kept_secret(environ: Mapping[str, str]) -> Mapping[str, str]:
    """In development, the secret that `penstock dev` keeps counts for the other commands too."""
    from penstock.settings import given_keys

    if environ.get(ENVIRONMENT) != "development" or "auth.jwt_secret" in given_keys(environ):
        return environ
    path = _secret_path(_directory(environ))
    return {**environ, SECRET_FILE: str(path)} if path.is_file() else environ


def with_found_secret(environ: Mapping[str, str]) -> Mapping[str, str]:
    """As `with_kept_secret`; raises SettingsError where, in development, there is none."""
    from penstock.settings import SettingsError, given_keys

    found = with_kept_secret(environ)
    if found.get(ENVIRONMENT) == "development" and "auth.jwt_secret" not in given_keys(found):
        raise SettingsError(
            f"no jwt_secret in {_directory(environ)}: run 'make run' (penstock dev) first, "
            "or set PENSTOCK_DEV__DIR or PENSTOCK_AUTH__JWT_SECRET"
        )
    return found


def _directory(environ: Mapping[str, str]) -> Path:
    from penstock.settings import Dev, load_section

    return Path(load_section(Dev, environ).dir).absolute()


def _secret_path(directory: Path) -> Path:
    return directory / "jwt_secret"


def _check(environ: Mapping[str, str]) -> None:
    """Raises SettingsError now, not when the servers have been started."""
    from penstock.settings import given_keys, load

    given = given_keys(environ)
    lacking = {name: url for key, (name, url) in STAND_INS.items() if key not in given}
    load({**environ, **lacking})


def _with_secrets(environ: Mapping[str, str], directory: Path) -> Mapping[str, str]:
    """Adds the secrets that nobody gave us: made once, and kept."""
    from penstock.settings import given_keys

    given, found = given_keys(environ), dict(environ)
    if "auth.jwt_secret" not in given:
        found[SECRET_FILE] = _kept(_secret_path(directory), secrets.token_urlsafe(48))
    if "webhook.secrets" not in given:
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        found[HOOKS_FILE] = _kept(directory / "webhook_secrets", f'["whsec_{key}"]')
    return found


def _kept(path: Path, fresh_text: str) -> str:
    """The path of a file, which is made with that text where there is none."""
    if not path.is_file():
        # Complete or not there at all: a file cut short would stop each later start.
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(fresh_text)
        fresh.replace(path)
    return str(path)


def _with_servers(
    environ: Mapping[str, str], directory: Path, stack: ExitStack
) -> Mapping[str, str]:
    """Starts the servers that nobody gave us, and adds where they are."""
    from penstock.dev import EmbeddedPostgres, EmbeddedRedis
    from penstock.settings import Dev, given_keys, load_section

    ports = load_section(Dev, environ)
    given = given_keys(environ)
    found = dict(environ)
    if "postgres.dsn" not in given:
        postgres = EmbeddedPostgres(directory, ports.postgres_port, environ)
        click.echo(f"penstock: starting {postgres.title} in {postgres.directory}", err=True)
        stack.enter_context(postgres)
        found["PENSTOCK_POSTGRES__DSN"] = postgres.dsn
    if "redis.url" not in given:
        redis = EmbeddedRedis(directory, ports.redis_port, environ)
        click.echo(f"penstock: starting {redis.title} in {redis.directory}", err=True)
        stack.enter_context(redis)
        found["PENSTOCK_REDIS__URL"] = redis.url
    return found


def _banner(settings: "Settings", directory: Path) -> Callable[[str], None]:
    ttl_s = min(TOKEN_TTL_S, settings.auth.token_max_age_s)

    def show(url: str) -> None:
        token = mint(settings.auth, {"sub": "dev", "roles": ["admin"]}, ttl_s)
        text = BANNER.format(url=url, token=token, days=ttl_s // DAY_S, data=directory)
        click.echo(text, err=True)

    return show
