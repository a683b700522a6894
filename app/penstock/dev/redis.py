"""An embedded Redis or Valkey.

In: the directory that holds all servers' data. Out: `url`. Data is in `<engine>-<version>/` there,
as an append-only file that is flushed each second; nothing is ever evicted.
"""

import secrets
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from penstock.dev.find import find_redis
from penstock.dev.process import HOST, EmbeddedServer, tethered
from penstock.settings import environment

PROBE_TIMEOUT_S = 1

CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
dir "{directory}"
pidfile "{pid_file}"
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""


class EmbeddedRedis(EmbeddedServer):
    """A Redis on 127.0.0.1 with a password of its own."""

    stop_signal = signal.SIGTERM

    def __init__(
        self, parent: Path, port: int = 0, environ: Mapping[str, str] | None = None
    ) -> None:
        self.program = find_redis(environment() if environ is None else environ, parent)
        super().__init__(parent / self.program.data_name, port)
        self.title = self.program.data_name.replace("-", " ").capitalize()
        # Without one, every user of this machine could read and change what is queued here.
        self._password = secrets.token_urlsafe(16)

    @property
    def url(self) -> str:
        """Where it is, for a client."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    @property
    def _data(self) -> Path:
        return self.directory

    @property
    def _pid_file(self) -> Path:
        return self.directory / "redis.pid"

    def _prepare(self) -> None:
        self.directory.chmod(0o700)

    def _command(self) -> list[str]:
        configuration = self.directory / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            CONFIGURATION.format(
                host=HOST,
                port=self.port,
                password=self._password,
                directory=self.directory,
                pid_file=self._pid_file,
            )
        )
        return tethered([str(self.program.path), str(configuration)], self.stop_signal)

    def _ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), PROBE_TIMEOUT_S) as link:
                link.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (more := link.recv(1024)):
                    answer += more
                return answer == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False
