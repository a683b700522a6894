"""The relay: empties the outbox, one channel each, every endpoint by itself.

In: effects that are due, claimed by lease. Out: messages at their receivers, and what came of them.
Always holds: no transaction is open while something is sent; an endpoint that hangs or refuses
takes one lane, and delays nothing of another's. If we die after a send and before it was written
down, the lease ends and it is sent again under the same id: at least once.
"""

import asyncio
import random
import secrets
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

from penstock import chaos, clock
from penstock.domain.effect import Channel, Delivery, Effect, Fate, Message, wait_s
from penstock.domain.errors import StoreUnavailable
from penstock.outlets import Outlet
from penstock.store.effects import Effects
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

_LANES = 32  # endpoints that are delivered to at once
_CLAIM_MAX = 500
_LEASE_S = 60.0
_TICK_S = 1.0

log = get_logger(__name__)

Compose = Callable[[Sequence[Effect]], Awaitable[list[Message | None]]]


class Relay:
    """`compose(effects)` makes messages of them, None where what they tell of is gone.
    `patience_s`: for so long an endpoint may fail before it is given up."""

    def __init__(
        self,
        channel: Channel,
        outlet: Outlet,
        effects: Effects,
        compose: Compose,
        metrics: Metrics,
    ) -> None:
        self._channel = channel
        self._outlet = outlet
        self._effects = effects
        self._compose = compose
        self._metrics = metrics
        self.patience_s = 5 * 86_400.0
        self.wake = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()  # endpoints that failed when we tried them last

    async def step(self) -> float:
        """Claims what is due for endpoints that are free, and begins to deliver it; the pause until
        the next look."""
        self.wake.clear()
        lanes = _LANES - len(self._busy)
        if lanes <= 0:
            return _TICK_S
        lease = secrets.token_bytes(16)
        share = (self._outlet.at_once, _CLAIM_MAX, _LEASE_S)
        claimed = await self._effects.claim(self._channel, lease, list(self._busy), share)
        by_endpoint: dict[str, list[Effect]] = defaultdict(list)
        for effect in claimed:
            by_endpoint[effect.endpoint].append(effect)
        for endpoint, batch in by_endpoint.items():
            work = self._serve(endpoint, lease, batch)
            self._busy[endpoint] = asyncio.create_task(work, name=f"relay:{self._channel}")
        return _TICK_S

    async def drained(self) -> None:
        """Returns when what is under way has come to an end."""
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def close(self) -> None:
        """Stops what is under way: it is sent again when its lease is over."""
        for task in self._busy.values():
            task.cancel()
        await self.drained()
        await self._outlet.close()

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
        began = clock.monotonic()
        composed = await self._compose(batch)
        messages = [one for one in composed if one is not None]
        dropped = [
            (effect.id, "dropped", "what it tells of is gone")
            for effect, message in zip(batch, composed, strict=True)
            if message is None
        ]
        fates = await self._tried(messages)
        await chaos.point("after_deliver")
        self._count(fates, clock.monotonic() - began)
        over, late = _sorted(messages, fates)
        if over or dropped:
            await self._effects.finish(lease, [*over, *dropped])
        if late:
            await self._effects.put_off(lease, late)
        await self._judge(endpoint, fates)

    async def _tried(self, messages: Sequence[Message]) -> list[Delivery]:
        if not messages:
            return []
        try:
            return await self._outlet.deliver(messages)
        except Exception as error:  # an outlet's bug must not lose a message
            log.exception("outlet_failed", channel=self._channel)
            told = traceback.format_exception_only(error)[-1].strip()
            return [Delivery(Fate.LATER, told[:500])] * len(messages)

    async def _judge(self, endpoint: str, fates: Sequence[Delivery]) -> None:
        """Keeps in mind which endpoints fail, and gives up those that say that they are gone or
        fail for too long."""
        bad = [one for one in fates if one.fate in (Fate.LATER, Fate.GONE)]
        if not bad and endpoint in self._failing:
            await self._effects.works(endpoint)
            self._failing.discard(endpoint)
        elif bad:
            self._failing.add(endpoint)
            gone = any(one.fate is Fate.GONE for one in bad)
            why = bad[-1].error or "no reason given"
            patience_s = float("inf") if self._channel is Channel.DEAD_LETTER else self.patience_s
            disabled = await self._effects.failed(
                endpoint, self._channel, why, gone=gone, patience_s=min(patience_s, 3e9)
            )
            if disabled:
                log.warning("endpoint_disabled", channel=self._channel, endpoint=endpoint, why=why)

    def _count(self, fates: Sequence[Delivery], seconds: float) -> None:
        for one in fates:
            self._metrics.effects(self._channel, one.fate).inc()
        self._metrics.delivery_seconds(self._channel).observe(seconds)


def _sorted(
    messages: Sequence[Message], fates: Sequence[Delivery]
) -> tuple[list[tuple[bytes, str, str | None]], list[tuple[bytes, float, str | None]]]:
    """What is over, and what is tried again."""
    over: list[tuple[bytes, str, str | None]] = []
    late: list[tuple[bytes, float, str | None]] = []
    for message, one in zip(messages, fates, strict=True):
        effect = message.effect
        if one.fate is Fate.DELIVERED:
            over.append((effect.id, "delivered", None))
            continue
        after_s = wait_s(effect, one, random.random()) if one.fate is Fate.LATER else None
        if after_s is None:
            over.append((effect.id, "failed", one.error))
        else:
            late.append((effect.id, after_s, one.error))
    return over, late
