"""`penstock migrate`: brings the database's schema up to date."""

import sys

import click

from penstock.cli.doors import explained
from penstock.cli.looping import run


@click.command()
@click.option("--check", is_flag=True, help="Only tell what is missing; exit with 1 if any is.")
def migrate(check: bool) -> None:
    """Apply the migrations that the database lacks, and print their names."""
    from penstock.settings import Postgres, environment, load_section
    from penstock.store import migrate as store

    dsn = load_section(Postgres, environment()).address
    with explained(dsn):
        names = run(store.pending(dsn) if check else store.migrate(dsn))
    for name in names:
        click.echo(name)
    if not names:
        click.echo("penstock: the schema is up to date", err=True)
    sys.exit(1 if check and names else 0)
