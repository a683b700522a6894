"""The settings at the door: which count and where each comes from; reading them again."""

from typing import Any

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.problems import Fault, Problem
from penstock.clock import rfc3339_of
from penstock.loops.reloader import Reload, ReloadRefused
from penstock.settings import describe
from penstock.settings.live import is_live


async def show(ask: Ask) -> web.Response:
    """Every setting that counts, secrets masked; what was refused, and what waits."""
    now = ask.door.reloader.now
    return views.answer(
        {
            "version": now.version,
            "loaded_at": rfc3339_of(now.loaded_at),
            "restart_needed": now.restart_needed,
            "refused": None if now.refused is None else _refused(now.refused),
            "settings": [
                {
                    "key": one.key,
                    "value": one.value,
                    "source": one.source,
                    "live": is_live(one.key),
                    "description": one.description,
                }
                for one in describe(now.settings)
            ],
        }
    )


async def reload(ask: Ask) -> web.Response:
    """Has all replicas read their settings again; what came of it on this one."""
    reloader = ask.door.reloader
    try:
        done = await reloader.reload_all(ask.caller.sub)
    except ReloadRefused as refused:
        faults = [Fault("", mistake) for mistake in refused.mistakes]
        raise Problem("settings-refused", _STAY.format(refused), faults=faults) from None
    return views.answer(
        {
            "version": reloader.now.version,
            "loaded_at": rfc3339_of(done.at),
            "changed": done.changed,
            "restart_needed": done.restart_needed,
        }
    )


_STAY = "nothing was changed: {}"


def _refused(reload: Reload) -> dict[str, Any]:
    return {"at": rfc3339_of(reload.at), "by": reload.by, "detail": reload.refusal}
