"""Servers of the command line's own: commands get them by their environment only."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.dev import EmbeddedPostgres, EmbeddedRedis
from tests.cli.command import SECRET, Servers


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        Path(name).chmod(0o711)
        with EmbeddedPostgres(Path(name)) as postgres, EmbeddedRedis(Path(name)) as redis:
            environ = {
                "PENSTOCK_POSTGRES__DSN": postgres.dsn,
                "PENSTOCK_REDIS__URL": redis.url,
                "PENSTOCK_AUTH__JWT_SECRET": SECRET,
                "PENSTOCK_HTTP__PORT": "0",
            }
            yield Servers(Path(name), environ)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A working directory that `nobody`, as whom PostgreSQL may run, can pass through."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        Path(name).chmod(0o711)
        yield Path(name)
