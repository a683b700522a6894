"""Where a worker's next ids come from: the shelves, or Postgres' line while Redis is away.

In: kinds and a count. Out: (queue, id) pairs in claim order, leased if they came from a shelf.
A queue is hot while it may hold ready jobs: wake-ups and the survey heat it, and it cools when a
claim finds it short.
"""

import random
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from penstock import chaos, clock
from penstock.domain.errors import QueueUnavailable
from penstock.domain.ids import JobId
from penstock.loops.missing import Missing
from penstock.loops.parts import Parts
from penstock.queue.shelves import CHUNK
from penstock.store.line import Round

_POLL_MIN_S = 0.05  # polls of Postgres while Redis is away
_POLL_MAX_S = 1.0
_ASK_S = 0.05  # after so long what was found is started before more queues are asked
_LINES = 200  # lines of Postgres a look
_REST_S = 5.0  # while Redis is there; a wake-up or the surveyor end it

Taken = list[tuple[str, JobId]]


class Claims:
    """The claims of one lane."""

    def __init__(self, parts: Parts, kinds: Sequence[str], missing: Missing) -> None:
        self._parts = parts
        self._kinds = kinds
        self._missing = missing
        self._hot: dict[str, None] = {}  # in the order in which they will be asked
        self._round = Round(parts.line, _LINES)
        self._poll_s = _POLL_MIN_S
        self._served: dict[str, bool] = {}

    def heat(self, queues: Iterable[str]) -> None:
        """These queues may hold ready jobs."""
        self._poll_s = _POLL_MIN_S
        self._hot.update((queue, None) for queue in queues if self._serves(queue))

    async def take(self, count: int) -> Taken:
        """Up to `count` ids; fewer, or none, when the line is short."""
        count = min(count, self._parts.settings.worker.claim_max, CHUNK)
        if self._parts.shelves.away:
            return await self._from_postgres(count)
        taken: Taken = []
        try:
            await self._from_shelves(count, taken)
        except QueueUnavailable:
            return taken or await self._from_postgres(count)
        return taken

    def pause_s(self) -> float:
        """How long to wait after a claim that found nothing."""
        if not self._parts.shelves.away:
            return 0.0 if self._hot else _REST_S
        self._poll_s = min(self._poll_s * 2, _POLL_MAX_S)
        return self._poll_s * random.uniform(0.5, 1.0)

    async def _from_shelves(self, count: int, taken: Taken) -> None:
        """Asks one hot queue after the other; soon starts what it has if there are many."""
        until = clock.monotonic() + _ASK_S
        for queue in list(self._hot):
            if len(taken) >= count or (taken and clock.monotonic() > until):
                return
            self._hot.pop(queue, None)  # before the claim: a wake-up meanwhile heats it again
            if not self._parts.book.paused(queue):
                await self._from_queue(queue, count, taken)

    async def _from_queue(self, queue: str, count: int, taken: Taken) -> None:
        want, lease_s = count - len(taken), self._parts.settings.queue.claim_s
        try:
            claimed = await self._parts.shelves.claim(queue, self._kinds, want, lease_s)
            if claimed.ids:
                await chaos.point("after_pop")
        except QueueUnavailable:
            self.heat((queue,))
            raise
        taken += [(queue, id_) for id_ in claimed.ids]
        if not claimed.marked:
            self._missing.report((queue,))
        if claimed.more or len(claimed.ids) == want:
            self.heat((queue,))

    async def _from_postgres(self, count: int) -> Taken:
        taken: Taken = []
        lines = list((await self._round.next()).items())
        random.shuffle(lines)  # no queue goes first for ever
        for queue, kinds in lines:
            ours = [kind for kind in kinds if kind in self._kinds]
            if ours and self._serves(queue) and not self._parts.book.paused(queue):
                aging_ms = self._parts.book.aging_ms(queue)
                due = await self._parts.line.head(queue, ours, count - len(taken), aging_ms)
                taken += [(queue, one.id) for one in due]
            if len(taken) >= count:
                break
        if taken:
            self._poll_s = _POLL_MIN_S
        return taken

    def _serves(self, queue: str) -> bool:
        if queue not in self._served:
            globs = self._parts.settings.worker.queues
            self._served[queue] = any(fnmatchcase(queue, glob) for glob in globs)
        return self._served[queue]
