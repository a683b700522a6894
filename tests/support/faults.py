"""Faults that take more than one call."""

import os
import shutil
import signal

import asyncpg

from penstock.dev.redis import EmbeddedRedis
from tests.support.scene import Scene
from tests.support.waiting import eventually

_SOME_BACKEND = """
SELECT pid FROM pg_stat_activity WHERE application_name = 'penstock' ORDER BY random() LIMIT 1
"""


async def crash_postgres(scene: Scene) -> None:
    """Kills a backend of the replicas, by which all sessions end; returns when it serves again."""
    async with scene.connected() as con:
        if (backend := await con.fetchval(_SOME_BACKEND)) is None:
            return
        os.kill(backend, signal.SIGKILL)

        async def has_ended() -> bool:
            return con.is_closed()

        await eventually(has_ended, "Postgres has ended all sessions", 5, every_s=0.01)
    await eventually(lambda: _answers(scene.dsn), "Postgres answers", 20, every_s=0.02)


def empty_redis(redis: EmbeddedRedis) -> None:
    """Removes what it would load again at its start."""
    for left in redis.directory.glob("appendonlydir*"):
        shutil.rmtree(left)
    for left in redis.directory.glob("*.rdb"):
        left.unlink()


async def _answers(dsn: str) -> bool:
    try:
        con = await asyncpg.connect(dsn, timeout=1)
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return False
    await con.close()
    return True
