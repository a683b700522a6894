"""One embedded server as a process: start, stop, kill, pause, resume.

In: a directory of its own and a port. Out: a server on 127.0.0.1, tied to our life, whose log is
`server.log` in that directory. Always holds: one of us at a time uses the directory (a lock file),
and what a crash of ours left running there is stopped before a start. Synchronous on purpose: it
runs before there is an event loop, and a test may call it from anywhere.
"""

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Self, TypeAlias

import psutil

from penstock import clock
from penstock.dev.find import EmbeddedError

HOST = "127.0.0.1"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
POLL_S = 0.01
LOG_MAX_BYTES = 10 * 1024 * 1024
PORT_TRIES = 3
# Below the ports that the kernel gives to clients: while a server of ours is down, a client that
# retries from the same port would connect to itself, and hold the port against the restart.
PORTS = range(20_000, 30_000)

Process: TypeAlias = "subprocess.Popen[bytes]"


class EmbeddedServer(ABC):
    """A server program that runs for as long as we do."""

    title: str
    stop_signal: signal.Signals

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory.absolute()
        self.port = port
        self._port_given = port != 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        # The kernel's tie is to the thread that started the server, so that thread must last.
        self._spawner = _Spawner()

    @abstractmethod
    def _prepare(self) -> None:
        """Makes the data directory ready for a start; must be safe to repeat."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the server answers."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """The file whose first line is the server's process id."""

    @property
    @abstractmethod
    def _data(self) -> Path:
        """The server's working directory, by which an orphan is known."""

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id. Raises EmbeddedError when it isn't running."""
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedError(f"{self.title} is not running")
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.directory / "server.log"

    def start(self) -> None:
        """Starts and waits until it answers; nothing when it runs. Keeps its port over restarts."""
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock_directory()
        try:
            self._end_orphan()
            self._prepare()
            self._start_on_some_port()
        except BaseException:
            self._unlock_directory()
            raise

    def stop(self) -> None:
        """Stops in good order; kills when that takes longer than 20 s. Nothing when not running."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        self._unlock_directory()

    def kill(self) -> None:
        """SIGKILL to the server and all its children at once; returns when they are gone."""
        if self._process is None:
            return
        _kill(self._family())
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def pause(self) -> None:
        """SIGSTOP to the server and its children: it is there but answers nothing."""
        _signal(self._family(), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: undoes `pause`."""
        _signal(self._family(), signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _start_on_some_port(self) -> None:
        for tries_left in reversed(range(PORT_TRIES)):
            self.port = self.port or _free_port()
            try:
                self._start_once()
                break
            except EmbeddedError:
                # Another program may have been quicker to take the port that we chose.
                if self._port_given or not tries_left or not _taken(self.port):
                    raise
                self.port = 0

    def _start_once(self) -> None:
        if _taken(self.port):
            raise EmbeddedError(f"port {self.port}, meant for {self.title}, is in use")
        self._process = self._spawner.run(self._spawn)
        try:
            self._wait_until(self._ready)
        except BaseException:
            self.kill()
            raise
        self._port_given = True

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._rotate_log()
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for us; we stop it when we have drained
            )

    def _rotate_log(self) -> None:
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_MAX_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = clock.monotonic() + START_TIMEOUT_S
        while not ready():
            try:
                code = self._process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                if clock.monotonic() < deadline:
                    continue
                reason = f"gave no answer in {START_TIMEOUT_S} s"
            else:
                reason = f"ended with {code}"
            raise EmbeddedError(f"{self.title} {reason}: {self._last_words()} ({self.log_file})")

    def _last_words(self) -> str:
        lines = self.log_file.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        return _family_of(psutil.Process(self._process.pid))

    def _lock_directory(self) -> None:
        if self._lock is not None:
            return  # a restart
        lock = (self.directory / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise EmbeddedError(
                f"{self.title} in {self.directory} is in use by process {holder}: stop that one, "
                "or choose another directory with PENSTOCK_DEV__DIR"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _unlock_directory(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _end_orphan(self) -> None:
        """Stops what a crash of ours left running here, and clears its pid file."""
        orphan = self._orphan()
        if orphan is not None:
            family = _family_of(orphan)
            _signal(family, signal.SIGCONT)
            _signal([orphan], self.stop_signal)
            if not _gone([orphan]):
                _kill(family)
        # The number in a pid file that was left behind may be another program's by now, and
        # PostgreSQL would refuse to start for that.
        self._pid_file.unlink(missing_ok=True)

    def _orphan(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file.read_text().split(maxsplit=1)[0]))
            return process if Path(process.cwd()) == self._data.resolve() else None
        except (OSError, ValueError, IndexError, psutil.Error):
            return None


class _Spawner:
    """A thread that lasts as long as the process, and doesn't keep it from ending."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = False

    def run(self, spawn: Callable[[], Process]) -> Process:
        """What `spawn` gives or raises, called there."""
        if not self._started:
            Thread(target=self._work, name="spawner", daemon=True).start()
            self._started = True
        given: Future[Process] = Future()
        self._calls.put(lambda: _fulfil(given, spawn))
        return given.result()

    def _work(self) -> None:
        while True:
            self._calls.get()()


def _fulfil(given: "Future[Process]", spawn: Callable[[], Process]) -> None:
    try:
        given.set_result(spawn())
    except BaseException as error:
        given.set_exception(error)


def tethered(
    program: Sequence[str], stop_signal: signal.Signals, uid: int = -1, gid: int = -1
) -> list[str]:
    """The command that runs `program` as `uid`, for as long as this process lives."""
    tether = Path(__file__).with_name("tether.py")
    ties = [str(os.getpid()), str(int(stop_signal)), str(uid), str(gid)]
    return [sys.executable, "-I", "-S", str(tether), *ties, *program]


def _family_of(head: psutil.Process) -> list[psutil.Process]:
    try:
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _kill(family: Sequence[psutil.Process]) -> None:
    # Stopped first: a parent that sees a child die would otherwise start a new one meanwhile.
    _signal(family[:1], signal.SIGSTOP)
    _signal(family, signal.SIGKILL)
    _gone(family)


def _gone(processes: Sequence[psutil.Process]) -> bool:
    deadline = clock.monotonic() + STOP_TIMEOUT_S
    while alive := any(_alive(process) for process in processes):
        if clock.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return not alive


def _alive(process: psutil.Process) -> bool:
    # Orphans may stay zombies until init cares; they hold nothing.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    candidates = random.sample(PORTS, 100)
    return next(port for port in candidates if not _taken(port))


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
