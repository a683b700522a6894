"""`penstock config`: what the settings are, where each comes from, and whether they are right."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock.settings import Setting


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@click.option("-o", "form", type=click.Choice(["table", "json"]), default="table")
def show(form: str) -> None:
    """Print every setting with its value, its source and its meaning; secrets are masked."""
    from penstock.cli.development import with_kept_secret
    from penstock.settings import SettingsError, describe, environment, load, survey

    environ, wrong = environment(), None
    try:
        environ = with_kept_secret(environ)
        settings = describe(load(environ))
    except SettingsError as error:
        settings, wrong = survey(environ), error
    click.echo(_json(settings) if form == "json" else _table(settings))
    if wrong is not None:
        raise wrong


@config.command()
def check() -> None:
    """Exit with 0 if the settings are right, else tell what is wrong and exit with 2."""
    from penstock.cli.development import with_kept_secret
    from penstock.doctor import demand_fit
    from penstock.settings import environment, load

    settings = load(with_kept_secret(environment()))
    demand_fit(settings)
    click.echo(f"penstock: the settings for {settings.env} are right", err=True)


def _json(settings: "list[Setting]") -> str:
    import json
    from dataclasses import asdict

    return json.dumps([asdict(setting) for setting in settings], indent=2)


def _table(settings: "list[Setting]") -> str:
    rows = [("KEY", "VALUE", "SOURCE", "MEANING")]
    rows += [(s.key, _text(s.value), s.source, s.description) for s in settings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True))
        for row in rows
    )


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value) or "-"
    return "-" if value is None else str(value)
