"""The relay: empties the outbox, one channel each, every endpoint by itself.

In: effects that are due, claimed by lease. Out: messages at their receivers, and what came of them.
Always holds: no transaction is open while something is sent; an endpoint that hangs or refuses
takes one lane and then rests, and delays nothing of another's; what is for one that was given up is
not tried, but dropped, and says so. If we die after a send and before it was written down, the
lease ends and it is sent again under the same id: at least once.
"""

import asyncio
import random
import secrets
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit

from penstock import chaos, clock
from penstock.domain.effect import (
    Channel,
    Delivery,
    Effect,
    Fate,
    Message,
    WaitsFor,
    is_last_try,
    wait_s,
)
from penstock.domain.errors import StoreUnavailable
from penstock.loops import traced
from penstock.loops.rests import Rests
from penstock.outlets import Outlet
from penstock.store.effects import Effects, Failing
from penstock.telemetry import tracing
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_CLAIM_MAX = 500
_LEASE_S = 60.0
_COMPOSED_AT_ONCE = 20
_HELD_MAX = 8 * 1024 * 1024  # characters of messages in memory, but for the last ones
_TICK_S = 1.0
PATIENT_S = 3e9  # a hundred years: such an endpoint is never given up

log = get_logger(__name__)

Compose = Callable[[Sequence[Effect]], Awaitable[list[Message | Delivery]]]
GiveUp = Callable[[Effect], Awaitable[None]]
Over = tuple[bytes, str, str | None]  # id, outcome, error
Late = tuple[bytes, float, str | None, WaitsFor | None]  # id, seconds, error, what it waits for
Held = tuple[bytes, datetime]  # id, until when


class Relay:
    """`compose(effects)` makes messages of them, or says why not. `patience_s`: for so long an
    endpoint may fail before it is given up."""

    def __init__(
        self,
        channel: Channel,
        outlet: Outlet,
        effects: Effects,
        compose: Compose,
        metrics: Metrics,
    ) -> None:
        self._channel = channel
        self.outlet = outlet
        self._effects = effects
        self._compose = compose
        self._metrics = metrics
        self.patience_s = PATIENT_S
        self.lanes = 64  # endpoints that are delivered to at once, about
        self.rests = Rests()
        self.is_shut: Callable[[], bool] = lambda: False  # nothing can be delivered just now
        self.give_up: GiveUp = _alone  # asked before an effect is over that leads a group
        self.wake = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._after = ""  # the endpoint behind which the next claim begins
        self._draining = False

    @property
    def busy(self) -> int:
        """How many endpoints are being delivered to."""
        return len(self._busy)

    async def step(self) -> float:
        """Claims what is due for endpoints that are free, and begins to deliver it; the pause until
        the next look."""
        self.wake.clear()
        free = self.lanes - len(self._busy)
        if self._draining or free <= 0 or self.is_shut():
            return _TICK_S
        lease = secrets.token_bytes(16)
        count = min(max(self.outlet.at_once, free), _CLAIM_MAX)
        share = (self.outlet.at_once, count, _LEASE_S)
        closed = [*self._busy, *self.rests.names()]
        after = self._after
        claimed = await self._effects.claim(self._channel, lease, closed, share, after)
        # All in turn: the first ones would always find room, and the last ones none.
        self._after = claimed[-1].endpoint if len(claimed) == count else ""
        by_endpoint: dict[str, list[Effect]] = defaultdict(list)
        for effect in claimed:
            by_endpoint[effect.endpoint].append(effect)
        for endpoint, batch in by_endpoint.items():
            work = self._serve(endpoint, lease, batch)
            self._busy[endpoint] = asyncio.create_task(work, name=f"relay:{self._channel}")
        return 0.0 if after or self._after else _TICK_S

    async def drain(self, within_s: float) -> None:
        """Begins nothing more, and returns when what is under way has come to an end, or the time
        is up. The rest is any other replica's."""
        self._draining = True
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=within_s)

    async def close(self) -> None:
        """Stops what is under way: it is sent again when its lease is over."""
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)
        await self.outlet.close()

    async def _serve(self, endpoint: str, lease: bytes, batch: Sequence[Effect]) -> None:
        try:
            await self._deliver(endpoint, lease, batch)
        except StoreUnavailable as error:
            log.warning("relay_waits", channel=self._channel, why=str(error))  # the lease ends
        except Exception:
            log.exception("relay_failed", channel=self._channel)
        finally:
            del self._busy[endpoint]
            self.wake.set()

    async def _deliver(self, endpoint: str, lease: bytes, batch: Sequence[Effect]) -> None:
        known = await self._effects.failing(endpoint)
        if known is not None and known.disabled_at is not None:
            why = f"the endpoint was given up at {clock.rfc3339(known.disabled_at)}: {known.error}"
            await self._finish(lease, batch, [(one.id, "dropped", why) for one in batch])
            self._count([Delivery(Fate.DROPPED)] * len(batch), 0.0)
            return
        while batch:
            composed = await self._composed(batch)
            part, batch = batch[: len(composed)], batch[len(composed) :]
            tried = await self._settled(lease, part, composed)
            await self._judge(endpoint, tried, known)

    async def _composed(self, batch: Sequence[Effect]) -> list[Message | Delivery]:
        """Messages of the first effects: of all, or of as many as memory should hold at once."""
        if self.is_shut():
            return [Delivery(Fate.LATER, "out of reach just now")] * len(batch)
        made: list[Message | Delivery] = []
        size = 0
        while len(made) < len(batch) and size < _HELD_MAX:
            more = await self._compose(batch[len(made) : len(made) + _COMPOSED_AT_ONCE])
            made += more
            size += sum(len(one.data) for one in more if isinstance(one, Message))
        return made

    async def _settled(
        self, lease: bytes, batch: Sequence[Effect], composed: Sequence[Message | Delivery]
    ) -> list[Delivery]:
        """Sends, and writes down what came of it; that of the messages."""
        began = clock.monotonic()
        messages = [one for one in composed if isinstance(one, Message)]
        tried = await self._tried(messages)
        if tried:
            await chaos.point("after_deliver")
        answers = iter(tried)
        came = [next(answers) if isinstance(one, Message) else one for one in composed]
        fates = [_for_good(effect, one) for effect, one in zip(batch, came, strict=True)]
        self._count(fates, clock.monotonic() - began)
        tried_ones = [isinstance(one, Message) for one in composed]
        over, late, held = _sorted(batch, fates, tried_ones)
        if over:
            await self._finish(lease, batch, over)
        if late:
            await self._effects.put_off(lease, late)
        if held:
            await self._effects.hold(lease, held)
        return tried

    async def _finish(self, lease: bytes, batch: Sequence[Effect], over: Sequence[Over]) -> None:
        ended = {id_ for id_, _, _ in over}
        for effect in batch:
            if effect.gathers and effect.id in ended:
                await self.give_up(effect)
        await self._effects.finish(lease, over)

    async def _tried(self, messages: Sequence[Message]) -> list[Delivery]:
        if not messages:
            return []
        if not tracing.is_on():
            return await self._sent(messages)
        spans, messages = traced.deliveries(self._channel, messages)
        try:
            fates = await self._sent(messages)
            traced.delivered(spans, fates)
            return fates
        finally:
            for span in spans:
                if span is not None:
                    span.give_up()

    async def _sent(self, messages: Sequence[Message]) -> list[Delivery]:
        try:
            return await self.outlet.deliver(messages)
        except Exception as error:  # an outlet's bug must not lose a message
            log.exception("outlet_failed", channel=self._channel)
            told = traceback.format_exception_only(error)[-1].strip()
            return [Delivery(Fate.LATER, told[:500])] * len(messages)

    async def _judge(self, endpoint: str, fates: Sequence[Delivery], known: Failing | None) -> None:
        """Keeps in mind which endpoints fail, and gives up those that say that they are gone or
        fail for too long. `known`: what was known of this one before."""
        bad = [one for one in fates if one.fate in (Fate.LATER, Fate.GONE)]
        gone = any(one.fate is Fate.GONE for one in bad)
        if not gone and any(one.fate is Fate.DELIVERED for one in fates):
            self.rests.works(endpoint)
            if known is not None:
                await self._effects.works(endpoint)
        elif bad:
            why = bad[-1].error or "no reason given"
            disabled = await self._effects.failed(
                endpoint, self._channel, why, gone=gone, patience_s=self.patience_s
            )
            if disabled:
                self._metrics.endpoints_disabled(self._channel).inc()
                log.warning("endpoint_disabled", channel=self._channel, at=_host(endpoint), why=why)
            elif self._channel is not Channel.DEAD_LETTER:  # a broker says itself when it is away
                self.rests.failed(endpoint, max(one.after_s or 0.0 for one in bad))

    def _count(self, fates: Sequence[Delivery], seconds: float) -> None:
        for one in fates:
            self._metrics.effects(self._channel, one.fate).inc()
            self._metrics.delivery_seconds(self._channel, one.fate).observe(seconds)


def _host(endpoint: str) -> str:
    """What may be logged: the rest of a URL may be its receiver's secret."""
    return urlsplit(endpoint).netloc or endpoint


async def _alone(_effect: Effect) -> None:
    """No effect of this channel is one of a group."""


def _for_good(effect: Effect, came: Delivery) -> Delivery:
    """A failure that no other try follows is one for good."""
    if came.fate is Fate.LATER and is_last_try(effect):
        return replace(came, fate=Fate.NEVER)
    return came


def _sorted(
    batch: Sequence[Effect], fates: Sequence[Delivery], tried: Sequence[bool]
) -> tuple[list[Over], list[Late], list[Held]]:
    """What is over, what is tried again, and what is held; the rest has been dealt with."""
    over: list[Over] = []
    late: list[Late] = []
    held: list[Held] = []
    for effect, one, was_tried in zip(batch, fates, tried, strict=True):
        if one.fate is Fate.GROUPED:
            continue
        if one.until is not None:
            held.append((effect.id, one.until))
            continue
        if one.fate in (Fate.DELIVERED, Fate.DROPPED):
            over.append((effect.id, one.fate, one.error))
            continue
        after_s = _after_s(effect, one, was_tried) if one.fate is Fate.LATER else None
        if after_s is None:
            over.append((effect.id, "failed", one.error))
        else:
            late.append((effect.id, after_s, one.error, WaitsFor.RETRY if was_tried else None))
    return over, late, held


def _after_s(effect: Effect, one: Delivery, was_tried: bool) -> float | None:
    """The schedule is for endpoints that fail: what wasn't sent waits as long as whoever kept it
    back says."""
    if not was_tried and one.after_s is not None:
        return one.after_s
    return wait_s(effect, one, random.random())
