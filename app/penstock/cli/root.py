"""The root command, and how an error is told: one line, no traceback, and a code.

Always holds: 0 is done, 1 is failed, 2 is wrong use or wrong settings. A traceback means a bug of
ours. Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import sys
from collections.abc import Iterator
from typing import Any

import click

from penstock import VERSION
from penstock.cli.config import config
from penstock.cli.development import dev
from penstock.cli.dlq_consumer import dlq_consumer
from penstock.cli.doctor import doctor
from penstock.cli.migrate import migrate
from penstock.cli.serve import serve
from penstock.cli.token import token
from penstock.domain.errors import PenstockError, WrongSetting

FAILED = 1
WRONG_SETTINGS = 2


class _OneLineErrors(click.Group):
    """A group whose commands' foreseeable errors end in one line on stderr."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            told = [_told(leaf) for leaf in _leaves(error)]
            if None in told:
                raise  # a bug, alone or among others: its traceback is what helps
            text, code = next(known for known in told if known is not None)
            click.echo(f"penstock: {text}", err=True)
            sys.exit(code)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(prog)s %(version)s")
def penstock() -> None:
    """A job scheduling server on PostgreSQL and Redis."""
    from penstock.settings import environment, near_misses

    for name in near_misses(environment()):
        text = f"penstock: warning: {name} does nothing: settings begin with PENSTOCK_"
        click.echo(text, err=True)


for command in (config, dev, dlq_consumer, doctor, migrate, serve, token):
    penstock.add_command(command)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside a group, as task groups raise them, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _told(error: BaseException) -> tuple[str, int] | None:
    from penstock.settings import SettingsError

    match error:
        case SettingsError() | WrongSetting():
            return str(error), WRONG_SETTINGS
        case PenstockError():
            return str(error), FAILED
        case OSError():
            return str(error) or type(error).__name__, FAILED
        case _:
            return None
