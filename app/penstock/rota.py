"""Which loops turn in a replica, by its roles: a part of `engine.py`."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from penstock.loops.supervise import Loop
from penstock.settings import Role

if TYPE_CHECKING:
    from penstock.engine import Engine


def loops_of(engine: "Engine", roles: Collection[Role]) -> Iterable[Loop]:
    """Every replica's loops, then those of its roles."""
    yield Loop("health", engine.rooms.health.step)
    yield Loop("tick", engine.keeper.tick)
    yield Loop("registrar", engine.registrar.step, engine.registrar.wake)
    yield Loop("book", engine.book.step, engine.book.wake)
    yield Loop("ears", engine.ears.step, listens=True)
    yield Loop("redis-clock", engine.renewer.read_clock)
    yield Loop("redis-watch", engine.redis_watch.step, engine.redis_watch.wake)
    yield Loop("survey", engine.surveyor.step)
    yield Loop("waiters", engine.waiters.step, engine.waiters.wake)
    yield Loop("gauges", engine.upkeep.gauges)
    yield Loop("settings", engine.reloader.step, engine.reloader.wake)
    if "scheduler" in roles:
        yield Loop("promoter", engine.promoter.step, engine.promoter.wake)
        yield Loop("reconciler", engine.reconciler.step, engine.missing.wake)
        yield Loop("reaper", engine.reaper.step)
        yield Loop("expirer", engine.expirer.step)
        yield Loop("spreader", engine.spreader.step, engine.spreader.wake)
        yield Loop("expired-leases", engine.renewer.return_expired, engine.renewer.wake)
        yield Loop("pruner", engine.pruner.step)
        yield Loop("counts", engine.upkeep.fold_counts)
        yield Loop("auditor", engine.auditor.step)
    if "relay" in roles:
        yield from engine.relays.loops()
    if "worker" in roles:
        yield Loop("worker", engine.worker.step, engine.worker.wake)
        yield Loop("adoption", engine.worker.adopt, engine.worker.adopt_wake)
        yield Loop("deadlines", engine.pool.check_deadlines, engine.pool.checked)
        yield Loop("leases", engine.renewer.renew)
        yield Loop("reports", engine.upkeep.keep_reports)
