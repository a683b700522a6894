"""A fuzzing run against one live replica, and all that must hold during and after it."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from tests.fuzz import answers
from tests.fuzz.mutator import Mutator
from tests.fuzz.seeds import seeds
from tests.support.api import Api
from tests.support.replica import ReplicaProcess

LINKS = 32
HANG_S = 10.0  # neither an answer nor a close within it is a hang
WARM_UP = 1000  # requests before memory is measured
_FINDINGS_MAX = 20
# The replica cuts slow clients soon, for many mutants are half requests.
ENVIRON = {
    "PENSTOCK_HTTP__HEAD_TIMEOUT_S": "0.3",
    "PENSTOCK_HTTP__BODY_TIMEOUT_S": "0.3",
    "PENSTOCK_LOG__LEVEL": "info",
    "MALLOC_ARENA_MAX": "2",
    "PENSTOCK_WEBHOOK__SCHEMES": '["http", "https"]',
    "PENSTOCK_HTTP__TRUSTED_PROXIES": '["127.0.0.0/8"]',
    # Far more than is asked for: what counts is that each request is counted.
    "PENSTOCK_RATE_LIMITS__RULES": (
        '[{"counts": "reads", "limit": 100000}, {"counts": "changes", "limit": 100000}, '
        '{"counts": "jobs", "limit": 1000000}]'
    ),
}
_BAD_LINES = re.compile(
    rb"request_failed|connection_failed|loop_failed|Traceback|Unhandled|\"level\": ?\"error\""
)


@dataclass(slots=True)
class Report:
    seed: int
    requests: int = 0
    took_s: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)  # "closed" where none was answered
    findings: list[str] = field(default_factory=list)
    rss_mib: tuple[float, float] = (0.0, 0.0)  # after the warm-up, at the end
    livez_max_ms: float = 0.0
    jobs: int = 0

    def find(self, what: str, sent: bytes) -> None:
        if len(self.findings) < _FINDINGS_MAX:
            self.findings.append(f"{what}\n    sent: {sent[:3000]!r}")

    def __str__(self) -> str:
        statuses = ", ".join(f"{key}: {count}" for key, count in sorted(self.statuses.items()))
        return (
            f"seed {self.seed}: {self.requests} requests in {self.took_s:.1f} s; {statuses}; "
            f"RSS {self.rss_mib[0]:.1f} -> {self.rss_mib[1]:.1f} MiB; "
            f"livez max {self.livez_max_ms:.1f} ms; {self.jobs} jobs stored and shown"
        )


async def run(replica: ReplicaProcess, dsn: str, requests: int, seed: int) -> Report:
    """Sends mutants; answers what was found. The replica is ready, and goes on afterwards."""
    report = Report(seed)
    async with Api(replica.url) as api:
        ids = [await api.submit(kind, delay_s=delay) for kind, delay in _JOBS]
        mutator = Mutator(seeds(ids), seed)
        await _send(replica, mutator, min(WARM_UP, requests), report)
        before = _rss_mib(replica.pid)
        watch = asyncio.create_task(_watch(replica, report))
        await _send(replica, mutator, requests - min(WARM_UP, requests), report)
        watch.cancel()
        report.rss_mib = before, _rss_mib(replica.pid)
        await _show_all(api, dsn, report)
    log = replica.log_file.read_bytes()
    report.findings += [
        line.decode()[:2000] for line in log.splitlines() if _BAD_LINES.search(line)
    ]
    if replica.ended:
        report.findings.append("the server has ended")
    return report


_JOBS = (("echo", 0), ("echo", 3600), ("nobody", 0))


async def _send(replica: ReplicaProcess, mutator: Mutator, count: int, report: Report) -> None:
    began, left = time.monotonic(), iter(range(count))

    async def link() -> None:
        for _ in left:
            sent = mutator.next()
            report.statuses[await _ask(replica, sent, report)] += 1

    await asyncio.gather(*(link() for _ in range(LINKS)))
    report.requests += count
    report.took_s += time.monotonic() - began


async def _ask(replica: ReplicaProcess, sent: bytes, report: Report) -> str:
    """The status of the first answer, or what came instead."""
    try:
        async with asyncio.timeout(HANG_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
            try:
                with suppress(ConnectionError):
                    writer.write(sent)
                    await writer.drain()
                return await _judge(reader, sent, report)
            finally:
                writer.transport.abort()
    except TimeoutError:
        report.find(f"nothing within {HANG_S:g} s", sent)
        return "hung"


async def _judge(reader: asyncio.StreamReader, sent: bytes, report: Report) -> str:
    to_head = sent.lstrip(b"\r\n").startswith(b"HEAD ")
    try:
        answer = await answers.read(reader, to_head=to_head)
    except (answers.NotHttp, asyncio.IncompleteReadError, ConnectionError) as error:
        report.find(f"not HTTP: {error}", sent)
        return "garbled"
    if answer is None:
        return "closed"
    if wrong := answers.complaint(answer, to_head=to_head):
        report.find(wrong, sent)
    return str(answer.status)


async def _watch(replica: ReplicaProcess, report: Report) -> None:
    """What others feel of it: the longest that /livez takes."""
    while True:
        took_s = await asyncio.to_thread(_livez_s, replica)
        report.livez_max_ms = max(report.livez_max_ms, took_s * 1000)
        await asyncio.sleep(0.02)


def _livez_s(replica: ReplicaProcess) -> float:
    began = time.monotonic()
    assert replica.is_live()
    return time.monotonic() - began


async def _show_all(api: Api, dsn: str, report: Report) -> None:
    """Every job that was stored can be shown, with what was tried and logged."""
    con = await asyncpg.connect(dsn)
    try:
        ids: Sequence[str] = [str(row[0]) for row in await con.fetch("SELECT job_id FROM jobs")]
    finally:
        await con.close()
    left = iter(ids)

    async def show() -> None:
        for id_ in left:
            for rest in ("", "/attempts", "/logs"):
                status, body = await api.call("GET", f"/v1/jobs/{id_}{rest}")
                if status != 200:
                    report.find(f"GET of a stored job: {status} {body}", id_.encode())

    await asyncio.gather(*(show() for _ in range(8)))
    report.jobs = len(ids)


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024
