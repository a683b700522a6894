"""The settings at the door: which count and where each comes from; reading them again.

They are of the whole server, and for admins whatever queues they see. What is set for a queue by
its name (`queues.<name>.*`) is for those who see that queue: others learn of none.
"""

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.entries import entry
from penstock.api.problems import Fault, Problem
from penstock.clock import rfc3339_of
from penstock.domain.audit_log import Entry
from penstock.domain.caller import Caller
from penstock.domain.errors import Unavailable
from penstock.loops.reloader import Reload, ReloadRefused, details_of
from penstock.settings import describe
from penstock.settings.live import is_live
from penstock.settings.names import path_of
from penstock.telemetry.logs import get_logger

log = get_logger(__name__)


async def show(ask: Ask) -> web.Response:
    """Every setting that counts, secrets masked; what was refused, and what waits."""
    now = ask.door.reloader.now
    return views.answer(
        {
            "version": now.version,
            "loaded_at": rfc3339_of(now.loaded_at),
            "restart_needed": _seen(ask.caller, now.restart_needed),
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
                if _sees(ask.caller, one.key)
            ],
        }
    )


async def reload(ask: Ask) -> web.Response:
    """Has all replicas read their settings again; what came of it on this one."""
    reloader = ask.door.reloader
    try:
        done = await reloader.reload_all(ask.caller.sub)
    except ReloadRefused as refused:
        await _note(ask, entry(ask, None, why=str(refused)[:_TOLD_MAX]).refused())
        faults = [Fault("", mistake) for mistake in refused.mistakes]
        raise Problem("settings-refused", _STAY.format(refused), faults=faults) from None
    await _note(ask, entry(ask, None, **details_of(done)))
    return views.answer(
        {
            "version": reloader.now.version,
            "loaded_at": rfc3339_of(done.at),
            "changed": _seen(ask.caller, done.changed),
            "restart_needed": _seen(ask.caller, done.restart_needed),
        }
    )


_STAY = "nothing was changed: {}"
_TOLD_MAX = 2000


def _seen(caller: Caller, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if _sees(caller, key)]


def _sees(caller: Caller, key: str) -> bool:
    """Whether a setting is of no queue, or of one of the caller's."""
    match path_of(key):
        case ("queues", queue, *_):
            return caller.sees(queue)
    return True


async def _note(ask: Ask, told: Entry) -> None:
    """The entry comes after what it tells of, which is memory and can't be undone: where it can't
    be stored, a log line has to do."""
    try:
        await ask.door.audit_log.add([told])
    except Unavailable as error:
        log.warning("reload_not_in_audit_log", by=ask.caller.sub, why=str(error))


def _refused(reload: Reload) -> dict[str, Any]:
    return {"at": rfc3339_of(reload.at), "by": reload.by, "detail": reload.refusal}
