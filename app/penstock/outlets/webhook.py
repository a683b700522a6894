"""Webhooks: CloudEvents 1.0 in structured JSON, signed as Standard Webhooks has it.

In: messages for one URL. Out: what came of each. Always holds: the address was judged where it was
connected to; no redirect is followed; a receiver that hangs, drips or floods costs `timeout_s` and
64 KiB. The id is the same at each try, so that a receiver can tell a repetition.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson
from standardwebhooks import Webhook as Signer

from penstock import clock
from penstock.domain.effect import DELIVERED, Delivery, Fate, Message
from penstock.domain.trace import headers_of
from penstock.egress import Egress, EgressError, EgressRefused, Response, retry_after_s
from penstock.outlets.events import attributes

KIB = 1024
AT_ONCE = 4  # calls to one URL
_ANSWER_MAX_BYTES = 64 * KIB
_GONE = 410


class Webhook:
    """`secrets`: `whsec_…` each; a receiver that knows any of them can verify."""

    at_once = 3 * AT_ONCE  # claimed together: three times `timeout_s` is within the relay's lease

    def __init__(self, egress: Egress, secrets: Sequence[str], timeout_s: float) -> None:
        self._egress = egress
        self._signers = [Signer(secret) for secret in secrets]
        self._timeout_s = timeout_s

    async def deliver(self, batch: Sequence[Message]) -> list[Delivery]:
        places = asyncio.Semaphore(AT_ONCE)
        return list(await asyncio.gather(*(self._placed(one, places) for one in batch)))

    async def close(self) -> None:
        """Nothing: the client is closed by who opened it."""

    async def _placed(self, message: Message, places: asyncio.Semaphore) -> Delivery:
        async with places:
            return await self._call(message)

    async def _call(self, message: Message) -> Delivery:
        body = body_of(message)
        headers = self._headers(message, body)
        try:
            response = await self._egress.request(
                "POST",
                message.effect.endpoint,
                headers,
                body,
                timeout_s=self._timeout_s,
                response_max_bytes=_ANSWER_MAX_BYTES,
            )
        except EgressRefused as refused:
            return Delivery(Fate.NEVER, str(refused))
        except EgressError as error:
            return Delivery(Fate.LATER, str(error))
        return _judged(response)

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        id_, seconds = message.effect.dedupe, int(clock.wall_s())
        at, text = datetime.fromtimestamp(seconds, UTC), body.decode()
        return {
            **headers_of(message.traceparent),
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "Accept-Encoding": "identity",  # nobody reads what is answered
            "webhook-id": id_,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(it.sign(id_, at, text) for it in self._signers),
        }


def body_of(message: Message) -> bytes:
    """The event in structured mode; the data as they were composed."""
    return orjson.dumps(
        {
            **attributes(message),
            "datacontenttype": "application/json",
            "data": orjson.Fragment(message.data),
        }
    )


def _judged(response: Response) -> Delivery:
    if 200 <= response.status < 300:
        return DELIVERED
    told = f"the endpoint answered {response.status}"
    if response.status == _GONE:
        return Delivery(Fate.GONE, told)
    # A 4xx may come of a receiver that is being set up; the schedule gives up in the end.
    return Delivery(Fate.LATER, told, retry_after_s(response.headers, clock.wall_s()))
