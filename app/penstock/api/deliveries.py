"""Deliveries at the door: what left the house or is still to, whom it went to, sending it again.

A delivery is seen by who sees the queue of its job, or all queues of its workflow; what tells of
neither, and the endpoints that fail, by who sees all queues.
"""

from dataclasses import replace

from aiohttp import web

from penstock.api import letter_views, notices, views
from penstock.api.ask import Ask
from penstock.api.blame import refusal, validated
from penstock.api.delivery_body import ENDPOINT_BODY, TEST_BODY, TestBody
from penstock.api.entries import entry
from penstock.api.lists import cut, own_queues, page
from penstock.api.problems import Fault, Problem, not_found
from penstock.api.queries import Cursors, DeliveriesQuery, PageQuery, one_of
from penstock.domain import ids
from penstock.domain.delivery import DeliveryView, endpoint_id
from penstock.domain.effect import Channel
from penstock.store.deliveries import DeliveryFilter


async def list_all(ask: Ask) -> web.Response:
    """What is to be delivered or was, the newest ends first."""
    query = ask.query
    assert isinstance(query, DeliveriesQuery)
    cursors = Cursors("deliveries", query, ask.caller)
    place = cursors.place()
    of = DeliveryFilter(
        queues=await own_queues(ask, ask.caller),
        channels=one_of(query.channel),
        outcomes=frozenset(query.outcome) or None,
        job=ids.parse(query.job_id) if query.job_id else None,
        workflow=ids.parse(query.workflow_id) if query.workflow_id else None,
    )
    if not await _may_see(ask, of.job, of.workflow) and (of.job or of.workflow):
        return views.page([])
    if place is not None:
        of = replace(of, below=place)
    found = await ask.door.deliveries.page(of, query.limit)
    return page(
        ask, [letter_views.delivery(one) for one in found.items], cursors.behind(found.next)
    )


async def show(ask: Ask) -> web.Response:
    """One, as it stands."""
    return views.answer(letter_views.delivery(await _own(ask)))


async def resend(ask: Ask) -> web.Response:
    """Sends one again, at once, under the id that its receiver knows."""
    view = await _own(ask)
    await _check_told_of(ask, view)
    await _check_enabled(ask, view.endpoint)
    told = {"channel": view.channel, "endpoint_id": endpoint_id(view.endpoint)}
    await ask.door.deliveries.send_again(view.id, entry(ask, ids.text(view.id), **told))
    return views.answer(letter_views.delivery(await _own(ask)))


async def endpoints(ask: Ask) -> web.Response:
    """Endpoints that fail or were given up."""
    query = ask.query
    assert isinstance(query, PageQuery)
    cursors = Cursors("endpoints", query, ask.caller)
    after = cursors.position()
    if ask.caller.queues is not None:
        return views.page([])
    found = await ask.door.deliveries.endpoints(after, query.limit + 1)
    following = cut(query, found, letter_views.endpoint_key)
    items = [letter_views.endpoint(one) for one in found]
    return page(ask, items, None if following is None else cursors.cursor(following))


async def enable(ask: Ask) -> web.Response:
    """Takes an endpoint back that was given up: what waits for it is tried at once."""
    body = validated(ENDPOINT_BODY, ask.body.value)
    if len(body) != 1:
        raise refusal([Fault("", "needs an id or an endpoint, and not both")])
    if ask.caller.queues is not None:
        raise not_found()
    found = await ask.door.deliveries.enable(body.get("id") or body["endpoint"], entry(ask, None))
    if found is None:
        raise not_found()
    return views.answer(letter_views.enabled(*found))


async def test(ask: Ask) -> web.Response:
    """Sends a message that tells of nothing, to see whether it arrives."""
    body = validated(TEST_BODY, ask.body.value)
    if len(body) != 1:
        raise refusal([Fault("", "must have one of webhook, email and rule")])
    rule = body.get("rule")
    channel, endpoint = _told_by(ask, body) if rule is None else _told_by_rule(ask, rule)
    id_ = ask.door.minter.mint()
    told = {"channel": channel, "delivery_id": ids.text(id_)}
    if rule is not None:
        told["rule"] = rule
    note = entry(ask, endpoint_id(endpoint), **told)
    await ask.door.deliveries.add_test(id_, channel, endpoint, rule, note)
    view = await ask.door.deliveries.delivery(id_)
    assert view is not None, "deliveries are kept for a minute at least"
    return views.answer(letter_views.delivery(view), 202)


def _told_by(ask: Ask, body: TestBody) -> tuple[Channel, str]:
    """Whom the body names."""
    faults = list(notices.endpoint_faults(body, "", ask.door.reach))
    if faults:
        raise refusal(faults)
    return notices.endpoint_of(body)


def _told_by_rule(ask: Ask, name: str) -> tuple[Channel, str]:
    """Whom that rule tells."""
    for rule in ask.door.reloader.now.settings.notifications.rules:
        if rule.name == name:
            wish = rule.as_wish()
            return wish.channel, wish.endpoint
    raise refusal([Fault("/rule", "no rule of that name is configured (notifications.rules)")])


async def _own(ask: Ask) -> DeliveryView:
    """The delivery that the path names; 404 where the caller may not see it."""
    id_ = ids.parse(ask.key)
    view = await ask.door.deliveries.delivery(id_) if id_ is not None else None
    if view is None or not await _may_see(ask, view.job, view.workflow):
        raise not_found()
    return view


async def _may_see(ask: Ask, job: ids.JobId | None, workflow: ids.JobId | None) -> bool:
    """Whether what tells of this job or workflow is for this caller."""
    caller = ask.caller
    if caller.queues is None:
        return True
    if job is not None:
        queue = (await ask.door.reads.queues_of([job])).get(job)
        if queue is None or not caller.sees(queue):
            return False
    if workflow is not None:
        view = await ask.door.workflow_reads.workflow(workflow)
        if view is None or not all(map(caller.sees, view.queues)):
            return False
    return job is not None or workflow is not None


async def _check_told_of(ask: Ask, view: DeliveryView) -> None:
    """410 where what it tells of is deleted: there would be nothing to send."""
    gone = view.job is not None and not await ask.door.reads.queues_of([view.job])
    if view.workflow is not None:
        gone = await ask.door.workflow_reads.workflow(view.workflow) is None
    if gone:
        raise Problem("gone", "the job or workflow that it tells of is deleted")


async def _check_enabled(ask: Ask, endpoint: str) -> None:
    """409 where the endpoint was given up: what is sent there would be dropped."""
    if await ask.door.deliveries.is_disabled(endpoint):
        how = f'POST /v1/endpoints/enable {{"id": "{endpoint_id(endpoint)}"}}'
        raise Problem("endpoint-disabled", f"its endpoint was given up; enable it first: {how}")
