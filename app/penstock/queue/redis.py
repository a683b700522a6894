"""The one door to Redis: scripts and commands, never resent, behind a circuit breaker.

In: a script's name, its keys and arguments. Out: Redis' answer, or `QueueUnavailable`. redis-py
would resend a call whose answer was lost (libraries.md, trap 1); ours are sent once. After three
failures, or one refused connection, the breaker opens: calls fail at once, and one probe a second
finds out whether Redis is back. What stands under a name of ours and is of another sort is taken
away: an index can be made anew. If we die here, nothing is lost: Redis holds hints only.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from penstock import clock
from penstock.domain import trust
from penstock.domain.errors import QueueUnavailable, WrongSetting
from penstock.queue import keys as names_of_keys
from penstock.telemetry.logs import get_logger

_FAILURES_MAX = 3
_SILENCE = 2  # failures that a time-out counts for
_PROBE_S = 1.0
_CONNECTIONS = 16
_REFUSES = (exceptions.AuthenticationError, exceptions.NoPermissionError)
# Out of reach, or a Redis that lives but can't serve us: loading, full, a replica, failing over.
_AWAY = (
    *(exceptions.ConnectionError, exceptions.TimeoutError, OSError, TimeoutError),
    *(exceptions.OutOfMemoryError, exceptions.ReadOnlyError),
    *(exceptions.ClusterDownError, exceptions.TryAgainError),
    # It refuses us: somebody changes a password or a right just now (decision 0016).
    *_REFUSES,
)
_SILENT = (exceptions.TimeoutError, TimeoutError)
_CANT = ("MISCONF ", "NOREPLICAS ", "BUSY ")  # the same, where redis-py has no class for it
_OTHER_SORT = "WRONGTYPE "
_CLOSED = "the handler is closed"  # uvloop, of a connection that was reset just before we wrote

Arg = str | bytes | int | float

log = get_logger(__name__)


class RedisDoor:
    def __init__(self, url: str, timeout_s: float) -> None:
        # Blocking: a call more than there are connections waits, it doesn't fail.
        pool = redis.BlockingConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
        )
        self._client = redis.Redis.from_pool(pool)
        self._url = url
        self._timeout_s = timeout_s
        self._scripts = {
            name: (body, sha1(body.encode(), usedforsecurity=False).hexdigest())
            for name, body in load().items()
        }
        self._failures = 0
        self._probe_at = 0.0
        self._by_script = False  # a script has failed: only a script can show that all is well
        self.why = ""  # the last failure, in Redis' words
        self.on_change: Callable[[bool], None] = lambda _open: None

    @property
    def is_open(self) -> bool:
        """True while calls are refused because Redis was found to be away."""
        return self._failures >= _FAILURES_MAX

    def connections(self) -> tuple[int, int]:
        """Connections that are busy, and those that are idle."""
        pool = self._client.connection_pool
        return len(pool._in_use_connections), len(pool._available_connections)

    async def script(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Runs one Lua script, loading it first if Redis doesn't know it."""
        self._admit()
        try:
            answer = await self._run(name, keys, args)
        except Exception as error:
            await self._clear(error, keys)
            raise self._judged(error, by_script=True) from error
        finally:
            heed_cancellation()
        self._succeeded(by_script=True)
        return answer

    async def command(self, *words: Arg) -> Any:
        """Runs one command."""
        self._admit()
        try:
            answer = await self._client.execute_command(*words)  # type: ignore[no-untyped-call]
        except Exception as error:
            await self._clear(error, [str(words[1])] if len(words) > 1 else [])
            raise self._judged(error) from error
        finally:
            heed_cancellation()
        self._succeeded()
        return answer

    async def commands(self, calls: Sequence[Sequence[Arg]]) -> list[Any]:
        """Runs many commands in one round trip, each for itself."""
        self._admit()
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                for words in calls:
                    pipe.execute_command(*words)
                answers = await pipe.execute()
        except Exception as error:
            await self._clear(error, {str(words[1]) for words in calls if len(words) > 1})
            raise self._judged(error) from error
        finally:
            heed_cancellation()
        self._succeeded()
        return answers

    def listening_client(self) -> redis.Redis:
        """A client that may wait for ever for what it subscribed to."""
        return redis.Redis.from_url(
            self._url,
            socket_connect_timeout=self._timeout_s,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """By its digest; with its text where Redis doesn't know it, which runs it in any case: to
        load it first leaves room for another SCRIPT FLUSH."""
        body, digest = self._scripts[name]
        words: tuple[Any, ...] = (len(keys), *keys, *args)
        try:
            return await self._client.evalsha(digest, *words)
        except exceptions.NoScriptError:
            return await self._client.eval(body, *words)

    async def _clear(self, error: Exception, names: Iterable[str]) -> None:
        """Takes away what keeps us from our own names because it is of another sort."""
        if not _is_of_another_sort(error):
            return
        for name in names:
            is_ours = name.startswith(names_of_keys.PREFIX)
            if is_ours and await self._run("clear", [name], [names_of_keys.sort_of(name)]):
                log.warning("foreign_key_removed", key=name, why=str(error)[:200])

    def _admit(self) -> None:
        if not self.is_open:
            return
        if clock.monotonic() < self._probe_at:
            raise QueueUnavailable("found to be away a moment ago")
        self._probe_at = clock.monotonic() + _PROBE_S * random.uniform(0.75, 1.25)

    def _succeeded(self, *, by_script: bool = False) -> None:
        if self._by_script and not by_script:
            self._probe_at = 0.0  # full, or without the right to scripts: a script shall tell
        elif self._failures:
            was_open, self._failures = self.is_open, 0
            self._by_script = False
            if was_open:
                self.on_change(False)

    def _judged(self, error: Exception, *, by_script: bool = False) -> Exception:
        """The error to raise; counts it if Redis is at fault."""
        if not _is_away(error):
            return error
        if by_script and isinstance(error, exceptions.ResponseError):  # Redis is there, and refuses
            self._by_script = True
        was_open, self.why = self.is_open, _said(error)
        why = error.__cause__ or error.__context__  # redis-py raises its own while it handles it
        if isinstance(why, ConnectionRefusedError):
            self._failures = _FAILURES_MAX
        else:  # silence costs a whole time-out each time, so the second one is enough
            self._failures += _SILENCE if isinstance(error, _SILENT) else 1
        if self.is_open and not was_open:
            self._probe_at = clock.monotonic() + _PROBE_S * random.uniform(0.75, 1.25)
            self.on_change(True)
        return QueueUnavailable(self.why, unknown=True)


def _said(error: Exception) -> str:
    return trust.fault_of(error) or str(error)[:200] or type(error).__name__


def heed_cancellation() -> None:
    """redis-py 8.1 swallows a cancellation that comes while it sets up a connection: the task
    would go on although it was told to end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _is_away(error: Exception) -> bool:
    said = str(error) if isinstance(error, exceptions.ResponseError) else ""
    is_closed = isinstance(error, RuntimeError) and _CLOSED in str(error)
    is_away = isinstance(error, _AWAY) or is_closed or any(code in said for code in _CANT)
    return is_away or _is_of_another_sort(error)


def _is_of_another_sort(error: Exception) -> bool:
    return isinstance(error, exceptions.ResponseError) and _OTHER_SORT in str(error)


def is_away(error: Exception) -> bool:
    """For listeners, which talk to redis-py themselves."""
    return _is_away(error)


def load() -> dict[str, str]:
    """The scripts by name: `lua/<name>.lua`."""
    folder = files("penstock.queue") / "lua"
    return {f.name.removesuffix(".lua"): f.read_text() for f in folder.iterdir()}


async def greet(url: str, timeout_s: float) -> str | None:
    """None if Redis takes our name and answers, else what keeps us from it.

    Raises WrongSetting for a URL that never will lead there. The password is never told.
    """
    setting = "redis.url (PENSTOCK_REDIS__URL)"
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2] or parts.path
    try:
        door = RedisDoor(url, timeout_s)
    except ValueError:  # its text may show a password
        raise WrongSetting(
            f"{setting} can't be read: write redis://user:password@host:port/database, "
            "special characters as %XX"
        ) from None
    try:
        await door.command("PING")
    except QueueUnavailable as error:
        if isinstance(error.__cause__, _REFUSES):
            return f"Redis at {place} refuses us: {_refusal(error.__cause__)}; see {setting}"
        if fault := trust.fault_of(error):
            return (
                f"Redis at {place} can't be trusted or doesn't trust us: {fault}; "
                "see redis.url, redis.ca_file and redis.cert_file"
            )
        return f"Redis is out of reach at {place}"
    except exceptions.RedisError as error:
        raise WrongSetting(f"Redis at {place} refuses us: {error}; see {setting}") from error
    finally:
        await door.close()
    return None


def _refusal(error: BaseException) -> str:
    return "it wants a password" if str(error).startswith("HELLO must") else str(error)
