"""An embedded PostgreSQL.

In: the directory that holds all servers' data. Out: `dsn` of the database `penstock`, as its
superuser `penstock`. Data is in `postgres-<major>/data/` there, with full durability.
"""

import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.dev.find import EmbeddedError, find_postgres
from penstock.dev.identity import Identity, own, server_identity
from penstock.dev.process import HOST, EmbeddedServer, tethered
from penstock.settings import environment

NAME = "penstock"  # the superuser and the database
INITDB_TIMEOUT_S = 120
BUILTIN_LOCALE_MAJOR = 17
STATUS_LINE = 7  # of postmaster.pid, counted from 0

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # a socket's path may have 107 bytes only
    "max_connections": "200",
    "shared_buffers": "256MB",
    "wal_compression": "on",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "10s",
    "fsync": "on",
    "synchronous_commit": "on",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL on 127.0.0.1 with a password of its own."""

    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    def __init__(
        self,
        parent: Path,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
        settings: Mapping[str, str] = SETTINGS,
    ) -> None:
        self._settings = settings
        self.program = find_postgres(environment() if environ is None else environ, parent)
        super().__init__(parent / self.program.data_name, port)
        self.title = f"PostgreSQL {self.program.major}"
        self._identity: Identity | None = None

    @property
    def dsn(self) -> str:
        """Where the database is, for a client."""
        return self.dsn_of(NAME)

    def dsn_of(self, database: str) -> str:
        """Where another database of this server is."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{NAME}:{password}@{HOST}:{self.port}/{database}"

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    def _prepare(self) -> None:
        identity = self._identity = server_identity(self.program.bin, self.directory)
        if not self._data.is_dir():
            self._make_cluster(identity)
        own(self._data, identity)

    def _make_cluster(self, identity: Identity) -> None:
        """Makes the cluster beside its place and moves it there whole: never a half-made one."""
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._write_password()
        own(fresh, identity)
        own(self._password_file, identity)
        self._run(identity, ["initdb", "-D", str(fresh), *self._initdb_options()])
        create = f"CREATE DATABASE {NAME};\n"
        self._run(identity, ["postgres", "--single", "-D", str(fresh), "postgres"], create)
        fresh.rename(self._data)

    def _write_password(self) -> None:
        # Without one, every user of this machine would be superuser here.
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(16))

    def _initdb_options(self) -> list[str]:
        options = ["-U", NAME, "-A", "password", f"--pwfile={self._password_file}"]
        if self.program.major >= BUILTIN_LOCALE_MAJOR:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return [*options, "--encoding=UTF8", "--locale=C", "--no-sync"]

    def _run(self, identity: Identity, command: Sequence[str], text: str = "") -> None:
        program = [str(identity.bin / command[0]), *command[1:]]
        done = subprocess.run(
            [*identity.prefix, *tethered(program, signal.SIGKILL, identity.uid, identity.gid)],
            input=text, capture_output=True, timeout=INITDB_TIMEOUT_S, check=False, cwd="/",
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        if done.returncode != 0:
            words = done.stderr.strip().splitlines() or ["no reason"]
            raise EmbeddedError(f"{program[0]} failed: {words[-1]}")

    def _command(self) -> list[str]:
        identity = self._identity
        assert identity is not None
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        program = [str(identity.bin / "postgres"), "-D", str(self._data), f"-p{self.port}"]
        tied = tethered([*program, *options], self.stop_signal, identity.uid, identity.gid)
        return [*identity.prefix, *tied]

    def _ready(self) -> bool:
        # As pg_ctl does; a connection would need a client library.
        try:
            return self._pid_file.read_text().splitlines()[STATUS_LINE].strip() == "ready"
        except (OSError, IndexError):
            return False
