"""`penstock migrate`: brings the database's schema up to date."""

import sys

import click

from penstock.cli.doors import explained
from penstock.cli.looping import run


@click.command()
@click.option("--check", is_flag=True, help="Only tell what is missing; exit with 1 if any is.")
@click.option(
    "--grant-to",
    metavar="ROLE",
    help="Then grant this role what a replica needs, and no more: it can't change the audit log.",
)
def migrate(check: bool, grant_to: str | None) -> None:
    """Apply the migrations that the database lacks, and print their names."""
    from penstock.settings import Postgres, environment, load_section
    from penstock.store import migrate as store
    from penstock.store.grants import grant

    if check and grant_to:
        raise click.UsageError("--check changes nothing, --grant-to does: give one of them")
    dsn = load_section(Postgres, environment()).address
    with explained(dsn):
        names = run(store.pending(dsn) if check else store.migrate(dsn))
        for name in names:
            click.echo(name)
        if not names:
            click.echo("penstock: the schema is up to date", err=True)
        if grant_to is not None:
            warning = run(grant(dsn, grant_to))
            if warning is not None:
                click.echo(f"penstock: warning: {warning}", err=True)
            click.echo(f"penstock: {grant_to} has what a replica needs", err=True)
    sys.exit(1 if check and names else 0)
