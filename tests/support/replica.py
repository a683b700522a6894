"""A replica as a process of its own, to be killed, stopped and woken like a real one."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from penstock.dev.process import tethered
from tests.support.ports import free_port
from tests.support.proxy import Proxy

SECRET = "a-secret-of-the-tests-with-32-bytes-and-more"
_BOOT_S = 30.0


class ReplicaProcess:
    """`penstock serve` with these servers; `environ` adds or overrides settings, and what is
    changed in it later counts from the next start on. `proxies`: where its connections to each
    dependency pass through one. `wanted`: it should be running, so who ends by himself has died.

    It dies with the thread that started it, so that an aborted test run leaves none behind.
    """

    def __init__(
        self, dsn: str, redis_url: str, directory: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = directory / f"replica-{self.port}.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        self.proxies: dict[str, Proxy] = {}
        self.wanted = False
        self.environ = {
            **clean,
            "PENSTOCK_ENV": "test",
            "PENSTOCK_HTTP__PORT": str(self.port),
            "PENSTOCK_POSTGRES__DSN": dsn,
            "PENSTOCK_REDIS__URL": redis_url,
            "PENSTOCK_AUTH__JWT_SECRET": SECRET,
            "PENSTOCK_HANDLERS__MODULES": '["penstock.handlers.samples", "tests.support.kinds"]',
            "PENSTOCK_EGRESS__ALLOW": '["127.0.0.0/8"]',
            "PENSTOCK_LOG__FORMAT": "json",
            "PYTHONPATH": os.pathsep.join(sys.path),
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def postgres_port(self) -> int:
        """Where it looks for PostgreSQL: there, or at a proxy."""
        port = urlsplit(self.environ["PENSTOCK_POSTGRES__DSN"]).port
        assert port is not None
        return port

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def status(self) -> int | None:
        """How it ended, as `subprocess` says it; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self, stdout: int | None = None) -> None:
        """`stdout`: another place for what it logs than the file that takes the rest."""
        self.wanted = True
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                tethered([sys.executable, "-m", "penstock", "serve"], signal.SIGKILL),
                env=self.environ,
                stdout=log if stdout is None else stdout,
                stderr=log,
            )

    async def ready(self) -> None:
        """Returns when it serves; fails with its last words when it can't."""
        give_up_at = time.monotonic() + _BOOT_S
        while not await asyncio.to_thread(self.is_ready):
            if self.ended or time.monotonic() > give_up_at:
                raise AssertionError(f"the replica didn't start:\n{self.last_words()}")
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        """As `kill -9`: it can say nothing more."""
        self.wanted = False
        self._signal(signal.SIGKILL)
        self._wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.wanted = False
        self._signal(signal.SIGTERM)

    def wait(self, within_s: float = 45.0) -> int:
        """Its exit status."""
        assert self._process is not None
        return self._process.wait(within_s)

    def stop(self) -> None:
        """Ends it for good, whatever state it is in; a test that failed shows what it said."""
        self.wanted = False
        was = self.status
        if not self.ended:
            self._signal(signal.SIGKILL)
            self._wait()
        if "PYTEST_CURRENT_TEST" in os.environ and self.log_file.exists():
            said = f"the replica on port {self.port} (status {was}) said last:"
            sys.stdout.write(f"{said}\n{self.last_words()}\n")

    def last_words(self) -> str:
        return self.log_file.read_text(errors="replace")[-4000:]

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        return self._says("/readyz")

    def is_live(self) -> bool:
        """Whether /livez says so."""
        return self._says("/livez")

    def reasons(self) -> str:
        """What /readyz says when it isn't ready; nothing when it is, or doesn't answer."""
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=2):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
        except OSError:
            return ""

    def _says(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait(10)
