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
@click.option(
    "--grant-to",
    metavar="ROLE",
    help="Then grant this role what a replica needs, and no more: it can't change the audit log.",
)
def migrate(check: bool, plan: bool, grant_to: str | None) -> None:
    """Apply the migrations that the database lacks, and print their names."""
    from penstock.settings import Postgres, environment, load_section
    from penstock.store import migrate as store
    from penstock.store.grants import grant

    if (check or plan) and grant_to:
        raise click.UsageError("--check and --plan change nothing, --grant-to does: give one")
    dsn = load_section(Postgres, environment()).address
    with explained(dsn):
        if check or plan:
            lines = [_told(one) if plan else one.name for one in run(store.plan(dsn))]
        else:
            lines = run(store.migrate(dsn))
        for line in lines:
            click.echo(line)
        if not lines:
            click.echo("penstock: the schema is up to date", err=True)
        if grant_to is not None:
            warning = run(grant(dsn, grant_to))
            if warning is not None:
                click.echo(f"penstock: warning: {warning}", err=True)
            click.echo(f"penstock: {grant_to} has what a replica needs", err=True)
    sys.exit(1 if check and lines else 0)


def _told(one: "Migration") -> str:
    """A migration with what its head says, a line each."""
    lines = [f"  {name}: {one.head[name]}" for name in _TOLD if name in one.head]
    return "\n".join([one.name, *lines])
