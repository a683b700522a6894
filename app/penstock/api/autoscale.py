"""How many replicas there should be: for KEDA's metrics-api scaler, or whoever scales."""

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.lists import queues_among
from penstock.api.queries import QueuesQuery
from penstock.domain.autoscale import demand, desired_replicas


async def show(ask: Ask) -> web.Response:
    """Of the queues that are asked for, or of all that the caller sees."""
    query = ask.query
    assert isinstance(query, QueuesQuery)
    names = await queues_among(ask, query.queue)
    now = demand(await ask.door.reads.cluster(), None if names is None else set(names))
    return views.answer(
        {
            "ready": now.ready,
            "oldest_ready_age_s": round(now.oldest_s, 3),
            "slots": now.slots,
            "busy": now.busy,
            "desired_replicas": desired_replicas(now, ask.door.scaling),
        }
    )
