"""Several replicas as processes on the same servers, with one execution log."""

import asyncio
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import orjson

from tests.support.execution_log import ExecutionLog
from tests.support.replica import ReplicaProcess


class Fleet:
    def __init__(self, dsn: str, redis_url: str, directory: Path) -> None:
        self.dsn = dsn
        self.log = ExecutionLog(directory / "execution.log")
        self.replicas: list[ReplicaProcess] = []
        self._redis_url = redis_url
        self._directory = directory

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    async def start(self, count: int, **settings: object) -> list[ReplicaProcess]:
        """Starts that many more; `worker__ttl_s=1` sets worker.ttl_s. Answers the new ones."""
        environ = {f"PENSTOCK_{name.upper()}": str(value) for name, value in settings.items()}
        new = [self._replica(environ) for _ in range(count)]
        for replica in new:
            replica.start()
        await asyncio.gather(*(replica.ready() for replica in new))
        return new

    async def metric(self, replica: ReplicaProcess, name: str) -> float:
        """The sum of a metric over its labels, as the replica counts it."""
        text = await asyncio.to_thread(_read, f"{replica.url}/metrics")
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return sum(float(line[-1]) for line in lines if line[0].partition("{")[0] == name)

    def stop(self) -> None:
        """Ends what still runs, whatever state it is in."""
        for replica in self.replicas:
            replica.stop()

    def complaints(self) -> list[str]:
        """What replicas logged as errors: bugs, for faults of others are only warnings."""
        lines = [line for one in self.replicas for line in one.log_file.read_text().splitlines()]
        return [line for line in lines if _is_complaint(line)]

    def _replica(self, environ: Mapping[str, str]) -> ReplicaProcess:
        environ = {"EXECUTION_LOG": str(self.log.path), **environ}
        replica = ReplicaProcess(self.dsn, self._redis_url, self._directory, environ)
        self.replicas.append(replica)
        return replica


def _is_complaint(line: str) -> bool:
    try:
        return orjson.loads(line)["level"] in ("error", "critical")
    except orjson.JSONDecodeError:
        return "Traceback" in line or "Error" in line  # what a crash writes has not our form


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
