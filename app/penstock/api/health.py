"""What machines ask without a token: is it alive, is it ready, what does it count."""

from typing import Any

from aiohttp import web

from penstock.api import problems, views
from penstock.api.ask import Ask
from penstock.api.door import Door
from penstock.api.problems import Problem
from penstock.domain.autoscale import Cluster, together
from penstock.domain.errors import PenstockError
from penstock.domain.job import State
from penstock.domain.readiness import Readiness
from penstock.telemetry.families import NAMES_MAX, OTHER
from penstock.telemetry.metrics import Metrics
from penstock.telemetry.of_cluster import STATES


async def livez(ask: Ask) -> web.Response:
    """200 while the event loop turns; looks at nothing else."""
    return live(ask.door)


async def readyz(ask: Ask) -> web.Response:
    """200, or 503 with the reasons; what is missing but not needed is `degraded`."""
    return ready(ask.door)


def live(_door: Door) -> web.Response:
    """What `livez` answers; `Connection` asks at once, for a task comes turns later."""
    return views.answer({"live": True})


def ready(door: Door) -> web.Response:
    """What `readyz` answers."""
    now = door.readiness()
    if not now.ready:
        why = "; ".join(now.reasons) or "this replica can't serve"
        problem = Problem("not-ready", why, headers={"Retry-After": "1"}, members=_members(now))
        return problems.answer(problem)
    return views.answer(_members(now))


async def metrics(ask: Ask) -> web.Response:
    """All metrics in Prometheus' text format; those of all replicas if PostgreSQL tells them."""
    try:
        found = await ask.door.reads.cluster()
    except PenstockError:
        found = None
    ask.door.metrics.ready.set(ask.door.readiness().ready)
    tell(ask.door.metrics, found)
    body, content_type = ask.door.metrics.exposition()
    return web.Response(body=body, headers={"Content-Type": content_type})


def tell(metrics: Metrics, found: Cluster | None) -> None:
    """Has the metrics of all replicas tell what was found; None: nothing."""
    metrics.cluster_told.set(found is not None)
    if found is None:
        for told in metrics.cluster:
            told.now = ()
        return
    named, others = found.loads[:NAMES_MAX], found.loads[NAMES_MAX:]
    metrics.foresee_queues(load.queue for load in named)
    shown = [*named, *([together(OTHER, others)] if others else [])]
    metrics.queue_depth.now = [
        ((load.queue, state), load.counts.get(State(state), 0))
        for load in shown
        for state in STATES
    ]
    metrics.queue_oldest.now = [((load.queue,), load.oldest_s) for load in shown]
    metrics.queue_paused.now = [((load.queue,), load.paused) for load in shown]
    metrics.workers.now = [((), sum(one.replicas for one in found.capacity))]
    metrics.workers_slots.now = [((), sum(one.slots for one in found.capacity))]


def _members(now: Readiness) -> dict[str, Any]:
    return {
        "ready": now.ready,
        "reasons": now.reasons,
        "degraded": now.degraded,
        "loops": {name: round(age_s, 3) for name, age_s in now.loops.items()},
    }
