"""What replicas tell each other by Redis' channels: wake-ups, cancels, changed settings, ends.

All of it is speed only: each message has a slow poll as its safety net, for while Redis is away.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress

import orjson

from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import BYTES, JobId
from penstock.queue import keys
from penstock.queue.listener import Listener
from penstock.telemetry.logs import get_logger

log = get_logger(__name__)


class Ears:
    """Dispatches messages; each callback is set by engine.py. Our own wake-ups are passed over."""

    def __init__(self, listener: Listener, origin: str) -> None:
        self._listener = listener
        self._origin = origin
        self._ended_wanted = False
        self.on_ready: Callable[[Iterable[str]], None] = lambda _queues: None
        self.on_due: Callable[[str, int], None] = lambda _queue, _due_ms: None
        self.on_cancel: Callable[[JobId], None] = lambda _id: None
        self.on_settings: Callable[[], None] = lambda: None
        self.on_configuration: Callable[[], None] = lambda: None
        self.on_ended: Callable[[list[JobId]], None] = lambda _ids: None
        self.on_back: Callable[[], None] = lambda: None  # the line was broken: messages were missed

    async def want_ended(self, wanted: bool) -> None:
        """Whether ends should be heard; costs nothing while nobody waits."""
        if wanted == self._ended_wanted:
            return
        self._ended_wanted = wanted
        with suppress(QueueUnavailable):  # else it is subscribed with the next connection
            await self._listener.want(keys.ENDED, wanted=wanted)

    async def step(self) -> float:
        """Listens until the line breaks."""
        await self._listener.connect([keys.WAKE, keys.CANCEL, keys.SETTINGS])
        if self._ended_wanted:  # looked at only now: it may have been asked for meanwhile
            await self._listener.want(keys.ENDED, wanted=True)
        self.on_back()
        while True:
            channel, data = await self._listener.next()
            try:
                self._dispatch(channel, data)
            except (ValueError, TypeError, KeyError) as error:  # none of ours: it only costs speed
                log.warning("message_passed_over", channel=channel, why=str(error)[:200])

    def _dispatch(self, channel: str, data: bytes) -> None:
        if channel == keys.WAKE:
            self._woken(data)
        elif channel == keys.CANCEL:
            for id_ in _ids(data):
                self.on_cancel(id_)
        elif channel == keys.SETTINGS and data == keys.CONFIGURATION:
            self.on_configuration()
        elif channel == keys.SETTINGS:
            self.on_settings()
        elif channel == keys.ENDED:
            self.on_ended(_ids(data))

    def _woken(self, data: bytes) -> None:
        message = orjson.loads(data)
        queue, due_ms, origin = message["queue"], message.get("due_ms"), message["origin"]
        if not isinstance(queue, str) or not isinstance(due_ms, int | None):
            raise TypeError("a queue's name, or a time, is none")
        if due_ms is not None:
            self.on_due(queue, due_ms)
        if message["ready"] and origin != self._origin:
            self.on_ready((queue,))


def _ids(data: bytes) -> list[JobId]:
    """One after the other, as they came."""
    return [JobId(data[i : i + BYTES]) for i in range(0, len(data), BYTES)]
