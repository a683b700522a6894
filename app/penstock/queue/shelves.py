"""The shelves: who is next, scheduled, leased, or waits for parents; one Lua script a verb.

In: due jobs and ids. Out: ids in claim order. Ids and scores only, never payloads. All may be
flushed at any moment: the reconciler puts back from Postgres what is missing. The blocked shelf is
a mirror of job_blocked that nothing relies on; an id that it lacks is put in line all the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from penstock import chaos
from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.job import Due
from penstock.domain.score import ready_score
from penstock.queue import keys
from penstock.queue.redis import Arg, RedisDoor

CHUNK = 1000  # members a script call
_CLOCK_SLACK_MS = 5  # clocks that agree this well are taken as one
_SURVEY = 200  # queues a round trip


@dataclass(frozen=True, slots=True)
class Off:
    """What leaves the leases shelf; `ended` if its job is over, which waiters should hear."""

    queue: str
    id: JobId
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    ids: list[JobId]
    marked: bool  # False: the queue's shelves may not be whole
    more: bool  # True: it stopped short of what the shelves hold


@dataclass(frozen=True, slots=True)
class Promoted:
    count: int
    next_in_s: float | None  # until the next one is due
    late_s: float | None = None  # of the first that was moved


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A queue as its shelves look; `due_in_s` until its next scheduled job."""

    queue: str
    marked: bool
    ready: bool
    due_in_s: float | None
    expired: bool  # a lease is over


@dataclass(slots=True)
class _Page:
    """What one script call of one queue carries."""

    off: list[JobId] = field(default_factory=list)
    ended: list[JobId] = field(default_factory=list)
    unblocked: list[JobId] = field(default_factory=list)
    blocked: list[JobId] = field(default_factory=list)
    ready: dict[str, list[Due]] = field(default_factory=lambda: defaultdict(list))
    scheduled: list[Due] = field(default_factory=list)
    size: int = 0

    def place(self, job: Due, now_ms: int) -> None:
        is_ready = job.ready_ms <= now_ms + 1  # one is rounded up, the other down
        (self.ready[job.kind] if is_ready else self.scheduled).append(job)


class Shelves:
    """`aging_ms(queue)`: the worth of a step of priority. `redis_lead_ms()`: Redis' clock minus
    Postgres'. `now_ms()`: Postgres' clock. `origin`: who we are, told with every wake-up."""

    def __init__(
        self,
        door: RedisDoor,
        aging_ms: Callable[[str], float],
        now_ms: Callable[[], int],
        redis_lead_ms: Callable[[], int],
        origin: str,
    ) -> None:
        self._door = door
        self._aging_ms = aging_ms
        self._now_ms = now_ms
        self._redis_lead_ms = redis_lead_ms
        self._origin = origin

    @property
    def away(self) -> bool:
        """True while Redis was found to be away: don't count on the shelves."""
        return self._door.is_open

    async def enqueue(
        self,
        due: Iterable[Due],
        off: Iterable[Off] = (),
        *,
        unlocked: Iterable[Due] = (),
        blocked: Iterable[Due] = (),
    ) -> list[str]:
        """Takes `off` from their leases, then puts `due` in line, and tells of both. `unlocked`
        leaves the blocked shelf and gets in line in one step; `blocked` gets on it, by age.

        Answers the queues whose marker is missing: their shelves need a rebuild.
        """
        unmarked = set()
        pages = _pages(due, off, self._now_ms(), unlocked, blocked)
        for number, (queue, page) in enumerate(pages):
            if number:
                await chaos.point("between_enqueues")
            args: list[Arg] = [keys.WAKE, self._message(queue, page), keys.ENDED]
            args += [b"".join(page.ended), len(page.off), len(page.unblocked)]
            args += [*page.off, *page.unblocked, len(page.blocked)]
            for id_ in page.blocked:
                args += [ids.created_ms(id_), id_]
            args.append(len(page.scheduled))
            for one in page.scheduled:
                args += [self._due_score(one), member(one)]
            aging = self._aging_ms(queue)
            for line in page.ready.values():
                args.append(len(line))
                for one in line:
                    args += [ready_score(one.priority, one.ready_ms, aging), one.id]
            names = [keys.leases(queue), keys.meta(queue), keys.blocked(queue)]
            names += [keys.scheduled(queue), *keys.ready(queue, page.ready)]
            if not await self._door.script("enqueue", names, args):
                unmarked.add(queue)
        return sorted(unmarked)

    async def blocked(self, queue: str, start: int, count: int) -> list[bytes]:
        """`count` members of the blocked shelf from the `start`th on, oldest first."""
        stop = start + count - 1
        found = await self._door.command("ZRANGE", keys.blocked(queue), start, stop)
        return list(found)

    async def unblock(self, queue: str, members: Sequence[bytes]) -> None:
        """Takes members off the blocked shelf, at most 1,000, that have no business there."""
        await self._door.command("ZREM", keys.blocked(queue), *members)

    async def restore(self, queue: str, due: Sequence[Due]) -> int:
        """Puts in line what stands on no shelf; answers how many that were."""
        missing = 0
        aging = self._aging_ms(queue)
        for _queue, page in _pages(due, (), self._now_ms()):
            args: list[Arg] = []
            for line in page.ready.values():
                args.append(len(line))
                for one in line:
                    score = ready_score(one.priority, one.ready_ms, aging)
                    args += [score, one.id, member(one)]
            args.append(len(page.scheduled))
            for one in page.scheduled:
                args += [self._due_score(one), one.id, member(one)]
            shelves = [keys.leases(queue), keys.scheduled(queue), keys.blocked(queue)]
            shelves += keys.ready(queue, page.ready)
            missing += await self._door.script("restore", shelves, args)
        return missing

    async def claim(self, queue: str, kinds: Sequence[str], count: int, lease_s: float) -> Claimed:
        """Pops up to `count` ids of these kinds and leases them, in one step."""
        names = [keys.leases(queue), keys.meta(queue), *keys.ready(queue, kinds)]
        answer = await self._door.script("claim", names, [count, int(lease_s * 1000)])
        popped = [one for one in answer[2:] if len(one) == ids.BYTES]  # others leave with the lease
        return Claimed(popped, marked=bool(answer[0]), more=bool(answer[1]))

    async def promote(self, queue: str, count: int) -> Promoted:
        """Moves up to `count` scheduled ids that are due to their ready shelves."""
        message = orjson.dumps({"queue": queue, "ready": True, "origin": None})
        args: list[Arg] = [
            count,
            self._aging_ms(queue),
            keys.ready_prefix(queue),
            keys.WAKE,
            message,
            self._lead_ms(),
        ]
        moved, now, score, first = await self._door.script("promote", [keys.scheduled(queue)], args)
        await chaos.point("after_promote")
        next_in_s = (float(score) - now) / 1000 if score else None
        return Promoted(moved, next_in_s, (now - float(first)) / 1000 if first else None)

    async def renew(self, queue: str, ids: Sequence[JobId], lease_s: float) -> None:
        for i in range(0, len(ids), CHUNK):
            args: list[Arg] = [int(lease_s * 1000), *ids[i : i + CHUNK]]
            await self._door.script("renew", [keys.leases(queue)], args)

    async def expired(self, queue: str) -> list[JobId]:
        """Up to 1,000 ids whose lease is over; they stay on the shelf."""
        shelf = keys.leases(queue)
        found = await self._door.script("expired", [shelf], [CHUNK])
        if strangers := [one for one in found if len(one) != ids.BYTES]:
            await self._door.command("ZREM", shelf, *strangers)
        return [one for one in found if len(one) == ids.BYTES]

    async def forget(self, jobs: Iterable[Due]) -> None:
        """Takes jobs that are over from the shelves they may stand on."""
        off: dict[str, list[Arg]] = defaultdict(list)
        for one in jobs:
            off[keys.ready(one.queue, [one.kind])[0]].append(one.id)
            off[keys.scheduled(one.queue)].append(member(one))
            off[keys.blocked(one.queue)].append(one.id)
        await self._door.commands(
            [
                ["ZREM", shelf, *members[i : i + CHUNK]]
                for shelf, members in off.items()
                for i in range(0, len(members), CHUNK)
            ]
        )

    async def begin_rebuild(self, queue: str, name: str) -> None:
        """Leaves the name of a rebuild with the shelves: a flush takes it with them."""
        await self._door.command("SET", keys.rebuild(queue), name)

    async def goes_on(self, queue: str, name: str) -> bool:
        """Whether nothing was flushed since this rebuild began, and nobody else began another."""
        return bool(await self._door.command("GET", keys.rebuild(queue)) == name.encode())

    async def mark(self, queue: str, name: str = "") -> bool:
        """Says that the queue's shelves are whole, unless it is said for a rebuild of this name
        that doesn't go on; whether it was said."""
        shelves = [keys.meta(queue), keys.rebuild(queue)]
        return bool(await self._door.script("mark", shelves, [self._now_ms(), name]))

    async def survey(self, queues: Sequence[str], kinds: Sequence[str]) -> list[Surveyed]:
        """Looks at many queues in a few round trips; `kinds` are those whose shelves matter."""
        found = []
        for i in range(0, len(queues), _SURVEY):
            found += await self._survey(queues[i : i + _SURVEY], kinds)
        return found

    async def _survey(self, queues: Sequence[str], kinds: Sequence[str]) -> list[Surveyed]:
        calls: list[list[Arg]] = [["TIME"]]
        for queue in queues:
            calls.append(["EXISTS", keys.meta(queue), *keys.ready(queue, kinds)])
            calls.append(["EXISTS", keys.meta(queue)])
            calls.append(["ZRANGE", keys.scheduled(queue), 0, 0, "WITHSCORES"])
            calls.append(["ZRANGE", keys.leases(queue), 0, 0, "WITHSCORES"])
        (seconds, micros), *answers = await self._door.commands(calls)
        now_ms = int(seconds) * 1000 + int(micros) / 1000
        return [
            _surveyed(queue, answers[4 * n : 4 * n + 4], now_ms) for n, queue in enumerate(queues)
        ]

    async def tell(self, channel: str, message: str | bytes) -> None:
        await self._door.command("PUBLISH", channel, message)

    async def tell_ready(self, queue: str) -> None:
        """Wakes the workers for a queue."""
        message = {"queue": queue, "ready": True, "origin": None}
        await self.tell(keys.WAKE, orjson.dumps(message))

    async def lock(self, name: str, ttl_s: float) -> bool:
        """Takes or keeps a lock that spares replicas double work; nothing relies on it."""
        key, ttl_ms = keys.lock(name), int(ttl_s * 1000)
        take: list[Arg] = ["SET", key, self._origin, "NX", "PX", ttl_ms]
        if await self._door.command(*take):
            return True
        holder = await self._door.command("GET", key)
        if holder not in (None, self._origin.encode()):
            return False
        if holder is not None and await self._door.command("PEXPIRE", key, ttl_ms):
            return True
        return bool(await self._door.command(*take))  # it has ended between two of these

    async def time(self) -> float:
        """Redis' clock in seconds since 1970."""
        seconds, micros = await self._door.command("TIME")
        return int(seconds) + int(micros) / 1e6

    def _due_score(self, one: Due) -> int:
        """A scheduled score goes by Redis' clock, which promote.lua reads."""
        return one.ready_ms + self._lead_ms()

    def _lead_ms(self) -> int:
        lead = self._redis_lead_ms()
        return lead if abs(lead) > _CLOCK_SLACK_MS else 0

    def _message(self, queue: str, page: _Page) -> bytes:
        if not page.ready and not page.scheduled:
            return b""
        due_ms = min((one.ready_ms for one in page.scheduled), default=None)
        wake = {"queue": queue, "ready": bool(page.ready), "due_ms": due_ms}
        return orjson.dumps({**wake, "origin": self._origin})


def _surveyed(queue: str, answers: Sequence[Any], now_ms: float) -> Surveyed:
    standing, marked, scheduled, leases = answers
    due_at, ends_at = _first_score(scheduled), _first_score(leases)
    return Surveyed(
        queue=queue,
        marked=bool(marked),
        ready=standing > marked,
        due_in_s=None if due_at is None else (due_at - now_ms) / 1000,
        expired=ends_at is not None and ends_at <= now_ms,
    )


def _first_score(head: Sequence[Any]) -> float | None:
    """Of a ZRANGE 0 0 WITHSCORES, flat (RESP2) or in pairs (RESP3)."""
    if not head:
        return None
    return float(head[0][1] if isinstance(head[0], list | tuple) else head[1])


def member(one: Due) -> bytes:
    """What stands on the scheduled shelf: promote.lua reads priority and kind from it."""
    return one.id + b"%d" % one.priority + one.kind.encode()


def _pages(
    due: Iterable[Due],
    off: Iterable[Off],
    now_ms: int,
    unlocked: Iterable[Due] = (),
    blocked: Iterable[Due] = (),
) -> list[tuple[str, _Page]]:
    """Splits by queue and to at most CHUNK ids a page; what goes off comes first. What is unlocked
    goes off and in line by the same page; of what is blocked and unlocked, only the latter counts.
    """
    full: list[tuple[str, _Page]] = []
    current: dict[str, _Page] = {}

    def room(queue: str) -> _Page:
        page = current.setdefault(queue, _Page())
        if page.size >= CHUNK:
            full.append((queue, page))
            page = current[queue] = _Page()
        page.size += 1
        return page

    for one in off:
        page = room(one.queue)
        page.off.append(one.id)
        if one.ended:
            page.ended.append(one.id)
    free: set[JobId] = set()
    for job in unlocked:
        free.add(job.id)
        page = room(job.queue)
        page.unblocked.append(job.id)
        page.place(job, now_ms)
    for job in due:
        room(job.queue).place(job, now_ms)
    for job in blocked:
        if job.id not in free:
            room(job.queue).blocked.append(job.id)
    return [*full, *current.items()]
