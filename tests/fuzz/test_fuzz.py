"""A short fuzzing run; the long one is `python -m tests.fuzz`."""

import secrets
from pathlib import Path

from tests.fuzz import campaign
from tests.fuzz.mutator import Mutator
from tests.support.figures import figures
from tests.support.replica import ReplicaProcess

REQUESTS = 3000
GROWTH_MAX_MIB = 20


async def test_no_bytes_at_all_break_the_server(dsn: str, redis_url: str, workplace: Path) -> None:
    seed = secrets.randbits(32)
    replica = ReplicaProcess(dsn, redis_url, workplace, campaign.ENVIRON)
    try:
        replica.start()
        await replica.ready()
        report = await campaign.run(replica, dsn, REQUESTS, seed)
    finally:
        replica.stop()
    figures("fuzz", report=report)
    assert not report.findings, f"seed {seed}:\n" + "\n".join(report.findings)
    assert "503" not in report.statuses, f"seed {seed}: {report}"
    assert report.rss_mib[1] - report.rss_mib[0] < GROWTH_MAX_MIB, f"seed {seed}: {report}"
    assert report.jobs > 0


def test_a_seed_repeats_its_requests() -> None:
    one, two = (Mutator([b"GET / HTTP/1.1\r\n\r\n", b"POST"], 7) for _ in range(2))
    first = [one.next() for _ in range(200)]
    assert first == [two.next() for _ in range(200)]
    assert len(set(first)) > 100
