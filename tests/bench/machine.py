"""On what it was measured: versions, cores, durability, and how busy the machine was."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import psutil
import redis

from penstock import VERSION
from tests.bench.figures import percentile
from tests.bench.ledger import Ledger
from tests.bench.stage import SETTINGS, Servers

_SYNCS = 100
_PAGE_BYTES = 8192


def load_average() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


async def facts(servers: Servers) -> dict[str, str]:
    """Names and values, to be printed above the table."""
    ledger = Ledger(servers.postgres.dsn)
    durability = [f"{name} {await ledger.setting(name)}" for name in _DURABILITY]
    major = await ledger.setting("server_version")
    libraries = [f"{name} {version(name)}" for name in ("uvloop", "aiohttp", "asyncpg", "redis")]
    return {
        "Penstock": f"{VERSION} {_commit()}".strip(),
        "settings": SETTINGS,
        "Python": f"{platform.python_version()}, {', '.join(libraries)}",
        "PostgreSQL": f"{major}, {', '.join(durability)}",
        "Redis": _redis(servers.redis.url),
        "machine": f"{_cpu_model()}, {_cores()} cores, {_memory()}, {platform.platform()}",
        "data on": f"{_file_system(servers.directory)}, {_sync_times(servers.directory)}",
    }


_DURABILITY = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers")


def _commit() -> str:
    root = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=root, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return done.stdout.strip()


def _redis(url: str) -> str:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        about = client.info("server")
        options = client.config_get("append*")
    name = "valkey" if "valkey_version" in about else "redis"
    kept = f"appendonly {options['appendonly']}, appendfsync {options['appendfsync']}"
    return f"{name} {about[f'{name}_version']}, {kept}"


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    return f"{psutil.virtual_memory().total / 2**30:.0f} GiB"


def _file_system(directory: Path) -> str:
    """In memory an fsync costs nothing, so it matters which one it is."""
    places = [
        part
        for part in psutil.disk_partitions(all=True)
        if directory.resolve().is_relative_to(part.mountpoint)
    ]
    return max(places, key=lambda part: len(part.mountpoint)).fstype if places else "unknown"


def _sync_times(directory: Path) -> str:
    """What a commit waits for at least: a page written in place, as into PostgreSQL's WAL."""
    sync = getattr(os, "fdatasync", os.fsync)
    page, times_ms = b"x" * _PAGE_BYTES, []
    with (directory / "sync").open("wb", buffering=0) as file:
        for _ in range(_SYNCS + 1):
            began = time.perf_counter()
            os.pwrite(file.fileno(), page, 0)
            sync(file.fileno())
            times_ms.append((time.perf_counter() - began) * 1000)
    del times_ms[0]  # it made the file larger
    p50, p99 = percentile(times_ms, 50), percentile(times_ms, 99)
    return f"a page written and synced: p50 {p50:.2f} ms, p99 {p99:.2f} ms"
