"""What an operator is told when PostgreSQL or Redis doesn't let us in: one line, no password.

PostgreSQL is the truth, without it nothing starts. Redis holds hints, so a start needs it not: one
that refuses our password is a warning, and jobs run without it until it takes it (decision 0016).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock.settings import Redis


@contextmanager
def explained(dsn: str) -> Iterator[None]:
    """Turns what PostgreSQL said into the words of its operator."""
    from penstock.store.postgres import explain

    try:
        yield
    except Exception as error:
        told = explain(error, dsn)
        if told is None:
            raise
        raise told from error


async def greet_redis(redis: "Redis") -> None:
    """Warns when Redis is out of reach or refuses us; WrongSetting where no URL is given."""
    from penstock.queue.redis import greet

    why = await greet(redis.address, redis.timeout_s)
    if why is not None:
        click.echo(f"penstock: warning: {why}; jobs run without it", err=True)
