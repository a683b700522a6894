"""A RabbitMQ of the tests, from Debian's package, as processes that are ended with us."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

from penstock.dev.process import tethered
from tests.support.ports import free_port

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_START_S = 90.0
_END_S = 20.0


class RabbitServer:
    """`with RabbitServer(directory) as server:`; `kill` and `start` again, with what it kept."""

    def __init__(self, directory: Path, message_max_bytes: int = 16 * 2**20) -> None:
        self._directory = directory
        self.message_max_bytes = message_max_bytes
        self.port, self._distribution, self._epmd = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def start(self) -> None:
        settings = self._directory / "rabbitmq.conf"
        settings.write_text(f"max_message_size = {self.message_max_bytes}\n")
        log = self._directory / "rabbitmq.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                tethered([str(PROGRAM)], signal.SIGTERM),
                env=self._environment(),
                stdout=out,
                stderr=out,
            )
        give_up_at = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"RabbitMQ didn't start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is None:
            return
        family = self._family()
        for one in family:
            one.kill()
        self._process.wait(20)
        self._process = None
        give_up_at = time.monotonic() + _END_S
        # They are no children of ours, and who comes next wants their ports and files.
        while self._listens() or any(map(_lives, family)):
            assert time.monotonic() < give_up_at, "RabbitMQ doesn't end"
            time.sleep(0.02)

    def remembers(self, queue: str) -> bool:
        """Whether a kill would leave the queue. Its declaration is answered when it is on the disk,
        but what isn't followed there by a decision, within 2 s, counts as aborted (Mnesia), and
        the queue takes along what was confirmed."""
        base = self._directory / "mnesia"
        dumped = base.glob("*/rabbit_durable_queue.DC?")
        if any(queue.encode() in one.read_bytes() for one in dumped):
            return True
        logged = b"".join(one.read_bytes() for one in base.glob("*/LATEST.LOG"))
        return b"committed" in logged[logged.rfind(queue.encode()) :]

    def _family(self) -> list[psutil.Process]:
        """Ours by their environment: epmd leaves its parent."""
        mark = str(self._directory)
        found = []
        for one in psutil.process_iter():
            try:
                if one.environ().get("RABBITMQ_MNESIA_BASE", "").startswith(mark):
                    found.append(one)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def _environment(self) -> dict[str, str]:
        home = str(self._directory)
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd),
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
        }

    def _listens(self) -> bool:
        with socket.socket() as link:
            return link.connect_ex(("127.0.0.1", self.port)) == 0

    def _answers(self) -> bool:
        """Whether it speaks AMQP: the port is open before that."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as link:
                link.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(link.recv(8))
        except OSError:
            return False


def _lives(process: psutil.Process) -> bool:
    """A zombie that nobody waits for is over."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
