"""Several replicas as processes on the same servers, with one execution log."""

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from tests.support.execution_log import ExecutionLog
from tests.support.proxy import Proxies, Proxy
from tests.support.replica import ReplicaProcess

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Death:
    """A replica that ended by itself. `at`: when it was found, in seconds since 1970."""

    at: float
    pid: int
    status: int


class Fleet:
    """`proxied`: each replica reaches each dependency through a fault proxy of its own, so that
    `replica.proxies["redis"].apply(BLACK_HOLE)` takes Redis from one of them and nothing else."""

    def __init__(self, dsn: str, redis_url: str, directory: Path, *, proxied: bool = False) -> None:
        self.dsn = dsn
        self.log = ExecutionLog(directory / "execution.log")
        self.replicas: list[ReplicaProcess] = []
        self.deaths: list[Death] = []
        self._redis_url = redis_url
        self._directory = directory
        self._proxies = Proxies() if proxied else None

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    async def start(self, count: int, **settings: object) -> list[ReplicaProcess]:
        """Starts that many more; `worker__ttl_s=1` sets worker.ttl_s, `chaos="..."` sets
        PENSTOCK_CHAOS. Answers the new ones."""
        new = [self._replica(environ(**settings)) for _ in range(count)]
        for replica in new:
            replica.start()
        await asyncio.gather(*(replica.ready() for replica in new))
        return new

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Meanwhile a replica that ends by itself is started again, as an orchestrator does it;
        `deaths` tells of each. Whoever kills one starts it himself."""
        supervising = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            supervising.cancel()
            await asyncio.wait([supervising])

    def heal(self) -> None:
        """Ends the faults of all proxies."""
        if self._proxies is not None:
            self._proxies.heal()

    async def metric(self, replica: ReplicaProcess, name: str, within_s: float = 10.0) -> float:
        """The sum of a metric over its labels, as the replica counts it. OSError if it can't."""
        text = await asyncio.to_thread(_read, f"{replica.url}/metrics", within_s)
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        return sum(float(line[-1]) for line in lines if line[0].partition("{")[0] == name)

    def stop(self) -> None:
        """Ends what still runs, whatever state it is in."""
        for replica in self.replicas:
            replica.stop()
        if self._proxies is not None:
            self._proxies.close()

    def complaints(self) -> list[str]:
        """What replicas logged as errors: bugs, for faults of others are only warnings."""
        lines = [line for one in self.replicas for line in one.log_file.read_text().splitlines()]
        return [line for line in lines if _is_complaint(line)]

    async def _supervise(self) -> None:
        while True:
            for replica in self.replicas:
                status = replica.status
                if replica.wanted and status is not None:
                    self.deaths.append(Death(time.time(), replica.pid, status))
                    replica.start()
            await asyncio.sleep(_LOOK_S)

    def _replica(self, environ: Mapping[str, str]) -> ReplicaProcess:
        environ = {"EXECUTION_LOG": str(self.log.path), **environ}
        dsn, redis_url, proxies = self.dsn, self._redis_url, dict[str, Proxy]()
        if self._proxies is not None:
            dsn, proxies["postgres"] = _through(self._proxies, dsn)
            redis_url, proxies["redis"] = _through(self._proxies, redis_url)
        replica = ReplicaProcess(dsn, redis_url, self._directory, environ)
        replica.proxies = proxies
        self.replicas.append(replica)
        return replica


def environ(**settings: object) -> dict[str, str]:
    """The environment that sets these: `environ(worker__ttl_s=1)`."""
    return {f"PENSTOCK_{name.upper()}": str(value) for name, value in settings.items()}


def _through(proxies: Proxies, url: str) -> tuple[str, Proxy]:
    """The same address, but through a new proxy."""
    parts = urlsplit(url)
    assert parts.port is not None
    proxy = proxies.to(parts.port)
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl(), proxy


def _is_complaint(line: str) -> bool:
    try:
        return orjson.loads(line)["level"] in ("error", "critical")
    except orjson.JSONDecodeError:
        return "Traceback" in line or "Error" in line  # what a crash writes has not our form


def _read(url: str, within_s: float) -> str:
    with urllib.request.urlopen(url, timeout=within_s) as answer:
        return str(answer.read().decode())
