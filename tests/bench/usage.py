"""What processes use: CPU seconds and memory."""

import os
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds. `machine`: what all processes used on all cores, stolen time included."""

    server: float
    postgres: float
    redis: float
    client: float
    machine: float
    wall: float

    def __sub__(self, earlier: "Cpu") -> "Cpu":
        return Cpu(
            self.server - earlier.server,
            self.postgres - earlier.postgres,
            self.redis - earlier.redis,
            self.client - earlier.client,
            self.machine - earlier.machine,
            self.wall - earlier.wall,
        )

    @property
    def others_pct(self) -> float:
        """The share of the whole machine that went to none of ours."""
        ours = self.server + self.postgres + self.redis + self.client
        spare = self.wall * (psutil.cpu_count() or 1)
        return max(self.machine - ours, 0.0) / spare * 100


@dataclass(frozen=True, slots=True)
class Usage:
    """Reads the counters of three servers, by their process ids, and of this process."""

    server_pid: int
    postgres_pid: int
    redis_pid: int

    def cpu(self) -> Cpu:
        return Cpu(
            _family_cpu(self.server_pid),
            _family_cpu(self.postgres_pid),
            _family_cpu(self.redis_pid),
            sum(os.times()[:4]),  # with children that have ended
            _machine_cpu(),
            time.perf_counter(),
        )

    def server_mib(self) -> float:
        """The server's resident memory."""
        return float(psutil.Process(self.server_pid).memory_info().rss) / 2**20


def _family_cpu(pid: int) -> float:
    """Of a process, of its children, and of the children that it has already buried."""
    head = psutil.Process(pid)
    times = head.cpu_times()
    total = float(times.user + times.system + times.children_user + times.children_system)
    for child in head.children():
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _machine_cpu() -> float:
    times = psutil.cpu_times()._asdict()
    # Guests' time is in `user` already.
    resting = ("idle", "iowait", "guest", "guest_nice")
    return float(sum(value for name, value in times.items() if name not in resting))
