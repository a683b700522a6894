"""A Prometheus of the tests, from Debian's package, as a process that is ended with us."""

import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest

from penstock.dev.process import tethered
from tests.support.ports import free_port

PROGRAM, PROMTOOL = shutil.which("prometheus") or "", shutil.which("promtool") or ""
_START_S = 60.0

needs_prometheus = pytest.mark.skipif(
    not (PROGRAM and PROMTOOL),
    reason="no Prometheus (apt-get install prometheus): dashboards and rules are not tried",
)

Sample = tuple[dict[str, str], float]


class Prometheus:
    """`with Prometheus(directory) as server:`; the directory holds its prometheus.yml."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        log = self._directory / "prometheus.log"
        command = [
            PROGRAM,
            f"--config.file={self._directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                tethered(command, signal.SIGKILL), stdout=out, stderr=out
            )
        give_up_at = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"Prometheus didn't start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *raised: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def ask(self, expr: str, at: float | None = None) -> list[Sample]:
        """The answer to a query, at a time (seconds since 1970) or now."""
        asked = {"query": expr, **({} if at is None else {"time": f"{at:.3f}"})}
        found = self._get("/api/v1/query?" + urllib.parse.urlencode(asked))
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def values(self, expr: str, since: float, until: float) -> list[float]:
        """All that a graph of this query would show, second by second."""
        asked = {"query": expr, "start": f"{since:.3f}", "end": f"{until:.3f}", "step": "1"}
        found = self._get("/api/v1/query_range?" + urllib.parse.urlencode(asked))["result"]
        return [float(value) for one in found for _, value in one["values"]]

    def alerts(self) -> list[dict[str, Any]]:
        """Those that are pending or fire."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts")["alerts"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Each with how its last evaluation went."""
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path}: {error.read().decode()}") from error

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
