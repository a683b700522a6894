"""Dead letters as the relay hands them to a broker's outlet."""

import json
from collections.abc import Iterable
from uuid import UUID

from penstock.domain.effect import Channel, Delivery, Fate, Message
from penstock.domain.ids import JobId
from tests.outlets.messages import effect
from tests.support.making import NOON

TOPIC = "dead"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def dead_letter(number: int, payload: str = "") -> Message:
    """The third attempt's, of a job whose id ends in `number`."""
    id_ = UUID(int=number)
    told = effect(
        Channel.DEAD_LETTER, TOPIC, job=JobId(id_.bytes), dedupe=f"{id_}:3", reason=None, at=NOON
    )
    error = {"type": "Boom", "message": "x" * 5000, "details": {"much": payload}}
    job = {"id": str(id_), "kind": "k", "queue": "q", "state": "dead", "payload": payload}
    return Message(told, json.dumps({**job, "error": error, "attempts": []}), TRACE)


def dead_letters(count: int, payload: str = "") -> list[Message]:
    return [dead_letter(number, payload) for number in range(count)]


def fates(deliveries: Iterable[Delivery]) -> set[Fate]:
    return {one.fate for one in deliveries}
