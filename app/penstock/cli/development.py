"""`penstock dev`: a whole Penstock on this machine, with servers and data of its own.

In: nothing but the settings. Out: a server to try things on, told by a banner on stderr. All its
data is in dev.dir, and a second run finds it. A server that is given by postgres.dsn or redis.url
is used as it is. If we die here, the embedded servers end with us (`dev.process`).
"""

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.looping import run
from penstock.cli.serve import Serve
from penstock.cli.token import DAY_S, mint

if TYPE_CHECKING:
    from penstock.settings import Settings

ENVIRONMENT = "PENSTOCK_ENV"
SECRET_FILE = "PENSTOCK_AUTH__JWT_SECRET_FILE"
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
  Ctrl-C stops everything and keeps the data.
"""


@click.command()
@click.pass_obj
def dev(server: Serve) -> None:
    """Run everything on this machine: PostgreSQL, Redis and the server."""
    from penstock.settings import Dev, environment, load, load_section
    from penstock.store.migrate import migrate

    given = {ENVIRONMENT: "development", **environment()}
    directory = Path(load_section(Dev, given).dir).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        found = _with_servers(_with_secret(given, directory), directory, stack)
        settings = load(found)
        run(migrate(settings.postgres.dsn.get_secret_value()))
        run(server(settings, _banner(settings, directory)))
        click.echo("penstock: stopping the embedded servers", err=True)


def with_kept_secret(environ: Mapping[str, str]) -> Mapping[str, str]:
    """In development, the secret that `penstock dev` keeps counts for the other commands too."""
    from penstock.settings import Dev, given_keys, load_section

    if environ.get(ENVIRONMENT) != "development" or "auth.jwt_secret" in given_keys(environ):
        return environ
    path = _secret_path(Path(load_section(Dev, environ).dir).absolute())
    return {**environ, SECRET_FILE: str(path)} if path.is_file() else environ


def _secret_path(directory: Path) -> Path:
    return directory / "jwt_secret"


def _with_secret(environ: Mapping[str, str], directory: Path) -> Mapping[str, str]:
    from penstock.settings import given_keys

    if "auth.jwt_secret" in given_keys(environ):
        return environ
    path = _secret_path(directory)
    if not path.is_file():
        # Complete or not there at all: a file cut short would stop each later start.
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48))
        fresh.replace(path)
    return {**environ, SECRET_FILE: str(path)}


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
