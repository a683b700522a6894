"""`penstock serve`: a server, or a part of one."""

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from penstock import chaos
from penstock.cli.doors import explained, greet_redis
from penstock.cli.looping import run, run_with_handlers

if TYPE_CHECKING:
    from penstock.settings import Settings
    from penstock.settings.watched import Source

# What `__main__` gives us: runs a server until SIGTERM or SIGINT, tells its URL when it is ready,
# and reads its settings again from there.
Serve = Callable[["Settings", Callable[[str], None], "Source"], Coroutine[Any, Any, None]]


@click.command()
@click.option("--roles", metavar="a,b", help="Parts to run: api, scheduler, worker, relay.")
@click.pass_obj
def serve(server: Serve, roles: str | None) -> None:
    """Run a server until SIGTERM or Ctrl-C.

    The database must be migrated: `penstock migrate`.
    """
    from penstock.settings import environment
    from penstock.settings.watched import source_of

    over = {} if roles is None else {"roles": _parsed(roles)}
    source = source_of(environment(), over=over)
    settings = source.load()
    start(server, settings, source, lambda url: click.echo(f"penstock: ready on {url}", err=True))


def start(
    server: Serve, settings: "Settings", source: "Source", on_ready: Callable[[str], None]
) -> None:
    """Runs a server to its end, after a look at whether it can begin."""
    from penstock.settings import environment

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # users' handlers are where they work
    chaos.arm(environment().get(chaos.VARIABLE), settings.env)
    run(greet_redis(settings.redis))
    with explained(settings.postgres.address):
        run_with_handlers(server(settings, on_ready, source))


def _parsed(text: str) -> tuple[str, ...]:
    from penstock.settings import Role

    known = get_args(Role)
    roles = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for role in roles:
        if role not in known:
            raise click.BadParameter(f"{role!r} is none of {', '.join(known)}", param_hint="roles")
    return roles
