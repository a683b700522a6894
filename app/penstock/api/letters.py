"""Dead letters at the door: lists, groups, replay, discard.

Next station: `commands/letters.py`. A letter is seen by who sees the queue that its job died in; a
job is replayed by who sees the one that it is in.
"""

import struct
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from penstock.api import letter_views, views
from penstock.api.ask import Ask
from penstock.api.batches import take_one
from penstock.api.blame import validated
from penstock.api.bodies import Body
from penstock.api.entries import entry, only
from penstock.api.job_body import JOB, MEMBER
from penstock.api.jobs import own_job
from penstock.api.letter_body import REPLAY_BODY, REPLAYS_BODY
from penstock.api.lists import page, queues_among
from penstock.api.problems import Fault, named, not_found
from penstock.api.queries import Cursors, GroupsQuery, LettersQuery, instant_of, one_of, us_of
from penstock.api.submissions import Intake, Origin
from penstock.domain import ids
from penstock.domain.defaults import Book
from penstock.domain.ids import BYTES, JobId
from penstock.domain.letter import Renewal, Which
from penstock.domain.terms import Terms
from penstock.domain.view import JobView
from penstock.domain.workflow import KIND
from penstock.store.letters import LetterFilter, Place
from penstock.store.lives import no_letter

_PLACE = struct.Struct(f">q{BYTES}si")  # microseconds since 1970, job, attempt
_GROUP = struct.Struct(">q8s")  # microseconds since 1970, fingerprint
_SAMPLE = 10
_TOLD_MAX = 20  # values of a filter in the audit log
_CLOSED = "is not open to this token"
_NESTED = "can't be changed of a job of kind workflow: submit a new one instead"


async def list_all(ask: Ask) -> web.Response:
    """Deaths, the newest first: those that nobody dealt with, if not asked otherwise."""
    query = ask.query
    assert isinstance(query, LettersQuery)
    cursors = Cursors("dead-letters", query, ask.caller)
    position = cursors.position(_PLACE.size)
    queues = await queues_among(ask, query.queue)
    if queues is not None and not queues:
        return views.page([])
    of = LetterFilter(
        queues,
        one_of(query.kind),
        one_of(query.error_type),
        one_of(query.fingerprint),
        Which(query.which),
        job=_owner(query.job_id),
        workflow=_owner(query.workflow_id),
    )
    if position is not None:
        of = replace(of, start=_place(position))
    found = await ask.door.letters.page(of, query.limit)
    items = [letter_views.letter(one) for one in found.items]
    return page(ask, items, None if found.next is None else cursors.cursor(_position(found.next)))


async def groups(ask: Ask) -> web.Response:
    """Open dead letters that are alike, counted."""
    query = ask.query
    assert isinstance(query, GroupsQuery)
    cursors = Cursors("dead-letter-groups", query, ask.caller)
    position = cursors.position(_GROUP.size)
    queues = await queues_among(ask, query.queue)
    of = LetterFilter(
        queues,
        one_of(query.kind),
        one_of(query.error_type),
        job=_owner(query.job_id),
        workflow=_owner(query.workflow_id),
    )
    below = None
    if position is not None:
        at, mark = _GROUP.unpack(position)
        below = (instant_of(at), mark.hex())
    found = await ask.door.letters.groups(of, below, query.limit)
    following = None
    if found.next is not None:
        mark = bytes.fromhex(found.next.fingerprint)
        following = cursors.cursor(_GROUP.pack(us_of(found.next.last), mark))
    items = [letter_views.group(one) for one in found.items]
    return page(ask, items, following, {"truncated": found.is_truncated})


async def replay(ask: Ask) -> web.Response:
    """A new life for one dead job, with another payload or queue if asked."""
    body = validated(REPLAY_BODY, ask.body.value)
    job = await own_job(ask)
    ask.room.foresee(job.size + ask.body.size)
    told = entry(ask, ids.text(job.id), job.queue)
    renewal = Renewal(ask.caller.sub, queue=body.get("queue"), entry=told)
    if "payload" in body:
        renewal = replace(renewal, payload=await _payload(ask, job, body))
    if renewal.queue is not None and not ask.caller.sees(renewal.queue):
        raise named("forbidden-queue", [Fault("/queue", _CLOSED)])
    await ask.door.dead_letters.replay(job.id, renewal)
    return views.answer(views.job(await ask.door.reads.job(job.id) or job))


async def replay_all(ask: Ask) -> web.Response:
    """Replays what a filter wants; a dry run counts, and shows some."""
    body = validated(REPLAYS_BODY, ask.body.value)
    wanted, is_dry = body["filter"], body.get("dry_run", False)
    of = LetterFilter(
        await queues_among(ask, wanted.get("queue", [])),
        one_of(wanted.get("kind", [])),
        one_of(wanted.get("error_type", [])),
        one_of(wanted.get("fingerprint", [])),
    )
    sample = []
    if is_dry:
        sample = (await ask.door.letters.page(of, _SAMPLE)).items
        done = await ask.door.dead_letters.count(of)
    else:
        rate = body.get("rate_per_s")
        told_of = {name: values[:_TOLD_MAX] for name, values in wanted.items()}
        note = partial(entry, ask, None, only(of.queues or ()), filter=told_of)
        done = await ask.door.dead_letters.replay_all(of, ask.caller.sub, rate, note)
    told = {
        "dry_run": is_dry,
        "matched": done.matched,
        "replayed": done.replayed,
        "failed": done.failed,
        "failures": [letter_views.failure(id_, error) for id_, error in done.failures],
        "more": done.more,
        "sample": [letter_views.letter(one) for one in sample],
    }
    return views.answer(told)


async def discard(ask: Ask) -> web.Response:
    """Takes one off the list; its job stays dead."""
    job = await own_job(ask)
    told = entry(ask, ids.text(job.id), job.queue)
    if not await ask.door.dead_letters.discard(job.id, ask.caller.sub, told):
        raise no_letter(job.state)
    found = await ask.door.letters.latest(job.id)
    if found is None:
        raise not_found()
    return views.answer(letter_views.letter(found))


async def _payload(ask: Ask, job: JobView, body: Any) -> str:
    """The new payload, held to what one of a new job is held to."""
    if job.kind == KIND:  # its workflow is there already, and goes on as it is
        raise named("validation-failed", [Fault("/payload", _NESTED)])
    form = JOB if job.workflow_id is None else MEMBER
    value = {"kind": job.kind, "payload": body["payload"]}
    if job.depends_on:
        value["depends_on"] = list(job.depends_on)
    if job.workflow_id is not None:
        value["name"] = job.name
    origin = Origin(job.created_by, job.traceparent, ask.body.suspect, job.workflow_id)
    recipe = replace(ask.door.recipe, terms=Terms(Book()))  # it is there: no kind is refused by now
    intake = Intake(recipe, origin, None, form)
    taken = await take_one(intake, Body(value, ask.body.suspect, ask.body.size), ask.door.pace)
    return taken.payload


def _owner(text: str | None) -> JobId | None:
    """Whose letters are wanted."""
    return None if text is None else ids.parse(text)


def _position(place: Place) -> bytes:
    return _PLACE.pack(us_of(place.died_at), place.job, place.attempt)


def _place(position: bytes) -> Place:
    at, job, attempt = _PLACE.unpack(position)
    return Place(instant_of(at), JobId(job), attempt)
