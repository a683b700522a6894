"""The command line as a user runs it: a process, its output and its exit code."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECRET = "hush" * 10
COMMAND_TIMEOUT_S = 60
OUTSIDE = {name: text for name, text in os.environ.items() if not name.startswith("PENSTOCK_")}
OUTSIDE["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)


@dataclass(frozen=True)
class Servers:
    directory: Path
    environ: dict[str, str]


def penstock(
    *words: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        env={**OUTSIDE, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
        cwd="/",
    )


def the_one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """What a failed command says: one line on stderr, nothing on stdout."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


class Running:
    """A command that goes on; its stderr is read line by line as it comes."""

    def __init__(self, words: tuple[str, ...], environ: dict[str, str], directory: Path) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *words],
            env={**OUTSIDE, **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def says(self, pattern: str) -> re.Match[str]:
        """Waits for a line that holds the pattern."""
        while (line := self._lines.get(timeout=COMMAND_TIMEOUT_S)) is not None:
            self.said.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"never said {pattern!r}, but: {''.join(self.said)}")

    def heard(self, text: str) -> bool:
        """Whether a line with the text has come by now."""
        while not self._lines.empty():
            self.said.append(self._lines.get() or "")
        return any(text in line for line in self.said)

    def ends(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(COMMAND_TIMEOUT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextmanager
def running(*words: str, environ: dict[str, str], directory: Path) -> Iterator[Running]:
    command = Running(words, environ, directory)
    try:
        yield command
    finally:
        command.close()


def the_last_line(done: subprocess.CompletedProcess[str]) -> str:
    """As `the_one_line`, for a command that may have logged before."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]
