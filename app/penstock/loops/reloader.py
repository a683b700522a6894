"""The reloader: what the settings say counts without a restart, all of it or nothing.

In: a file of theirs that changed, SIGHUP, a call, a word of another replica, and a look every
`config.poll_s` for what tells nobody of itself. Out: new settings for all parts at once, by the
swaps of who wires us; or a refusal with every mistake, and the old ones stay. Always holds:
settings are read and judged whole before any part hears of them. All of it is memory: if we die
here, the next start reads the same sources.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from penstock import clock
from penstock.domain.errors import PenstockError
from penstock.outliving import outlived
from penstock.settings import Settings, live
from penstock.settings.watched import Source, Stamps
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

FILE, POLL, SIGNAL, REPLICA = "file", "poll", "signal", "replica"  # by what, if by no caller
_UNASKED = (FILE, POLL)

_LOOK_S = 0.5
_WRITING_MAX_S = 5.0  # files that don't come to rest are read all the same
_READ_MAX_S = 20.0
_KEYS_MAX, _TOLD_MAX = 100, 2000  # of what is told of one reload

log = get_logger(__name__)

# Makes all that settings need, and answers what puts it in place. Raises PenstockError.
Swap = Callable[[Settings], Callable[[], None]]


class ReloadRefused(PenstockError):
    """What was read can't count; `mistakes` are told one by one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        _, *listed = text.split("\n  - ")
        self.mistakes = listed or [text]


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of reading the settings again, and by what they were read: one of the words above,
    or a caller's `sub`. `at`: seconds since 1970. `refusal`: why they don't count."""

    by: str
    of_caller: bool  # who may call himself by those words
    at: float
    changed: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()
    refusal: str | None = None
    is_news: bool = True  # else the same was found before


def details_of(reload: Reload) -> dict[str, Any]:
    """What is told of a reload: keys, no values; of a refusal its mistakes, which hide secrets."""
    if reload.refusal is not None:
        return {"why": reload.refusal[:_TOLD_MAX]}
    return {
        "changed": list(reload.changed[:_KEYS_MAX]),
        "restart_needed": list(reload.restart_needed[:_KEYS_MAX]),
    }


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise ReloadRefused(
            f"the settings could not be read within {_READ_MAX_S:g} s: their files, or SSM, hang; "
            "they are read again by themselves"
        ) from None


async def _unheard(_reload: Reload) -> None:
    """Of a reloader that nobody listens to."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The settings that count. `refused`: what was read since, if it was refused."""

    settings: Settings
    version: str
    loaded_at: float
    restart_needed: tuple[str, ...] = ()
    refused: Reload | None = None


class Reloader:
    """`swaps` and `on_reload`, which is told of all that is news, are set by who wires us."""

    def __init__(self, settings: Settings, source: Source, metrics: Metrics) -> None:
        self._source = source
        self._metrics = metrics
        self._poll_at = clock.monotonic() + settings.config.poll_s
        self._one_at_a_time = asyncio.Lock()
        self._reading: asyncio.Task[tuple[Stamps, Settings]] | None = None
        self._asked: str | None = None
        self._read: Stamps = source.stamps(settings)  # of what was read last
        self._seen = self._read
        self._changing_since: float | None = None
        self.now = Standing(settings, live.version(settings), clock.wall_s())
        self._accepted = self._read
        self.wake = asyncio.Event()
        self.swaps: list[Swap] = []
        self.on_reload: Callable[[Reload], Awaitable[None]] = _unheard
        self.tell_others: Callable[[], Awaitable[None]]
        self._measure()

    def ask(self, by: str) -> None:
        """Has the settings read by the next step, which is at once; where a file has just been
        changed, by the one after it."""
        self._asked = by
        self.wake.set()

    async def step(self) -> float:
        """Looks whether it is time to read, and does so; the pause until the next look."""
        by = await self._due()
        if by is not None:
            self._asked = None
            with suppress(ReloadRefused):  # which is told of already
                await self._reload(by, of_caller=False)
        return _LOOK_S

    async def _due(self) -> str | None:
        """By what to read now, if at all. A file is read when it has come to rest: somebody may be
        writing it, and half of it, or an empty one, may be right by itself."""
        seen = await asyncio.to_thread(self._source.stamps, self.now.settings)
        now = clock.monotonic()
        if seen != self._seen:
            self._seen = seen
            self._changing_since = self._changing_since or now
            if now - self._changing_since < _WRITING_MAX_S:
                return None
        if self._asked is not None:
            return self._asked
        if seen != self._read:
            return FILE
        self._changing_since = None
        return POLL if now >= self._poll_at else None

    async def reload_all(self, by: str) -> Reload:
        """Has all replicas do what `reload` does: what came of it here. Raises ReloadRefused, after
        20 s at the latest: what settings come from may hang, and others may ask for them too."""
        try:
            return await self.reload(by)
        finally:
            await self.tell_others()

    async def reload(self, by: str) -> Reload:
        """Reads the settings for a caller, and has them count. Raises ReloadRefused: the old ones
        stay."""
        return await self._reload(by, of_caller=True)

    async def _reload(self, by: str, *, of_caller: bool) -> Reload:
        until = asyncio.get_running_loop().time() + _READ_MAX_S
        async with self._turn(until):
            try:
                stamps, read = await self._whole(until)
                done = self._take(by, of_caller, stamps, read)
            except PenstockError as error:
                done = self._refused(by, of_caller, str(error))
            except Exception as error:  # whatever stands in a file mustn't end the process
                log.exception("settings_unreadable")
                told = f"the settings can't be read: {type(error).__name__}: {error}"
                done = self._refused(by, of_caller, told)
            self._changing_since = None
            self._poll_at = clock.monotonic() + self.now.settings.config.poll_s
            self._measure()
            if done.is_news:
                await self.on_reload(done)
        if done.refusal is not None:
            raise ReloadRefused(done.refusal)
        return done

    @asynccontextmanager
    async def _turn(self, until: float) -> AsyncIterator[None]:
        """One at a time. Raises ReloadRefused, which whoever reads meanwhile notes and tells."""
        with _in_time():
            async with asyncio.timeout_at(until):
                await self._one_at_a_time.acquire()
        try:
            yield
        finally:
            self._one_at_a_time.release()

    async def _whole(self, until: float) -> tuple[Stamps, Settings]:
        """Reads everything, in a thread: files and networks may hang. While one reading does, none
        is begun beside it."""
        with _in_time():
            async with asyncio.timeout_at(until):
                if self._reading is not None:  # what it finds may be old by now
                    await asyncio.wait([self._reading])
                self._reading = asyncio.create_task(asyncio.to_thread(self._load))
                return await outlived(self._reading)

    def _load(self) -> tuple[Stamps, Settings]:
        """What a caller asks for is read at once, and again while it changes meanwhile: then it may
        be half of what somebody is writing."""
        until = clock.monotonic() + _WRITING_MAX_S
        while True:
            stamps = self._read = self._source.stamps(self.now.settings)
            try:
                read = self._loaded(stamps)
            except PenstockError:
                if self._is_at_rest(stamps, until):
                    raise
            else:
                if self._is_at_rest(stamps, until):
                    return stamps, read

    def _is_at_rest(self, stamps: Stamps, until: float) -> bool:
        return self._source.stamps(self.now.settings) == stamps or clock.monotonic() >= until

    def _loaded(self, stamps: Stamps) -> Settings:
        gone = [path for path, was in self._accepted.items() if was and stamps.get(path) is None]
        if gone:
            raise ReloadRefused(
                f"{gone[0]} was read before and is gone: put it back, or start anew without it"
            )
        return self._source.load()

    def _take(self, by: str, of_caller: bool, stamps: Stamps, read: Settings) -> Reload:
        change, is_asked = live.change(self.now.settings, read), of_caller or by not in _UNASKED
        if change.changed or is_asked:  # else caches and budgets would begin anew with each poll
            self._swap(change)
        before, self._accepted = self.now, stamps
        changed, waits = change.changed, change.restart_needed
        is_news = bool(changed) or waits != before.restart_needed or before.refused is not None
        done = Reload(by, of_caller, clock.wall_s(), changed, waits, is_news=is_news)
        self.now = Standing(change.settings, live.version(change.settings), done.at, waits)
        if is_news or is_asked:  # who asked looks for an answer
            log.info("settings_reloaded", by=by, **details_of(done))
        self._metrics.config_reloads("changed" if changed else "unchanged").inc()
        return done

    def _swap(self, change: live.Change) -> None:
        commits = [swap(change.settings) for swap in self.swaps]  # all are made before one counts
        for commit in commits:
            commit()

    def _refused(self, by: str, of_caller: bool, why: str) -> Reload:
        before, waits = self.now.refused, self.now.restart_needed
        is_news = before is None or before.refusal != why  # else a poll found the same again
        refused = Reload(by, of_caller, clock.wall_s(), (), waits, why, is_news)
        if is_news:
            self.now = replace(self.now, refused=refused)
        if is_news or of_caller or by not in _UNASKED:
            mistakes = [one[:_TOLD_MAX] for one in ReloadRefused(why).mistakes[:_KEYS_MAX]]
            hint = "the old ones still count"
            log.warning("settings_refused", by=by, mistakes=mistakes, hint=hint)
        self._metrics.config_reloads("refused").inc()
        return refused

    def _measure(self) -> None:
        self._metrics.config_loaded_at.set(self.now.loaded_at)
        self._metrics.config_refused.set(self.now.refused is not None)
        self._metrics.config_restart_needed.set(len(self.now.restart_needed))
