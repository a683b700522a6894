"""`penstock migrate`: brings the database's schema up to date."""

import sys
from typing import TYPE_CHECKING

import click

from penstock.cli.doors import explained
from penstock.cli.looping import run

if TYPE_CHECKING:
    from penstock.store.migrate import Migration

_TOLD = ("what", "locks", "safe while old code runs", "needs code of")


@click.command()
@click.option("--check", is_flag=True, help="Only tell what is missing; exit with 1 if any is.")
@click.option("--plan", is_flag=True, help="Only tell what is missing, and what it would do.")
def migrate(check: bool, plan: bool) -> None:
    """Apply the migrations that the database lacks, and print their names."""
    from penstock.settings import Postgres, environment, load_section
    from penstock.store import migrate as store

    dsn = load_section(Postgres, environment()).dsn.get_secret_value()
    with explained(dsn):
        if check or plan:
            lines = [_told(one) if plan else one.name for one in run(store.plan(dsn))]
        else:
            lines = run(store.migrate(dsn))
    for line in lines:
        click.echo(line)
    if not lines:
        click.echo("penstock: the schema is up to date", err=True)
    sys.exit(1 if check and lines else 0)


def _told(one: "Migration") -> str:
    """A migration with what its head says, a line each."""
    lines = [f"  {name}: {one.head[name]}" for name in _TOLD if name in one.head]
    return "\n".join([one.name, *lines])
