"""What Redis says of itself, for a start, the watch and the doctor."""

from typing import Any

from redis.exceptions import NoPermissionError

from penstock import clock
from penstock.domain.errors import QueueUnavailable
from penstock.domain.safety import RedisState
from penstock.queue.redis import RedisDoor


async def state_of(door: RedisDoor) -> RedisState | None:
    """One INFO, which tells without the right to CONFIG too; None: we may not even ask that.
    Raises QueueUnavailable."""
    try:
        said: dict[str, Any] = await door.command("INFO")
    except QueueUnavailable as error:
        if isinstance(error.__cause__, NoPermissionError):
            return None
        raise
    is_valkey = "valkey_version" in said
    major, minor = str(said["valkey_version" if is_valkey else "redis_version"]).split(".")[:2]
    return RedisState(
        engine="valkey" if is_valkey else "redis",
        version=(int(major), int(minor)),
        mode=str(said.get("redis_mode", "standalone")),
        role=str(said.get("role", "master")),
        policy=str(said.get("maxmemory_policy", "")),
        maxmemory=int(said.get("maxmemory", 0)),
        used=int(said.get("used_memory", 0)),
        saves=said.get("rdb_last_bgsave_status", "ok") == "ok"
        and said.get("aof_last_write_status", "ok") == "ok",
    )


async def ahead_s(door: RedisDoor) -> float:
    """How far its clock is ahead of this machine's, to half a round trip."""
    sent = clock.wall_s()
    seconds, micros = await door.command("TIME")
    return int(seconds) + int(micros) / 1e6 - (sent + clock.wall_s()) / 2
