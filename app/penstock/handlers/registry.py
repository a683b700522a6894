"""The handlers that this process knows, found once at start.

In: names of modules. Out: a `Handler` for each function marked with `@handler`, its way of being
called decided, so that a run decides nothing any more. Always holds: a kind has one handler; a
kind is looked up here and never imported by its name. What can't be registered stops the start
with one message.
"""

import importlib
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from penstock.domain.job import NAME_PATTERN
from penstock.domain.workflow import KIND
from penstock.handlers.calling import Handler, shaped
from penstock.handlers.errors import HandlerError
from penstock.handlers.payloads import Fault, faults_at_door

__all__ = ["Handler", "Registry", "handler"]

ALWAYS = ("penstock.handlers.http",)

_MARK = "_penstock_kinds"
_NAME = re.compile(NAME_PATTERN)

F = TypeVar("F", bound=Callable[..., Any])


def handler(kind: str) -> Callable[[F], F]:
    """Marks an `async def` or a plain `def` as the handler of `kind`; registers nothing yet.

    The attempt is over when the function returns. Tasks, timers and threads that it started and
    didn't wait for live on, for they may belong to a client that later jobs use too; but nobody
    waits for them, retries them or tells them of a cancel, and the process ends them when it ends.
    So await what belongs to the job (`async with asyncio.TaskGroup()`).

    A job that was lost twice with its replica runs in a child process of its own from then on. It
    has the same context there, but modules are imported anew: a handler must not count on what
    other jobs left in memory (a cache may be empty, a connection is made again), and what it leaves
    behind, tasks and processes too, ends with the attempt.
    """
    if not isinstance(kind, str):
        raise HandlerError('@handler needs the name of a kind: @handler("word-count")')

    def mark(function: F) -> F:
        if not inspect.isfunction(function):
            raise HandlerError(f"handler {kind!r}: only functions can be handlers")
        setattr(function, _MARK, (*getattr(function, _MARK, ()), kind))
        return function

    return mark


class Registry:
    """Kinds and their handlers; never changes."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(sorted(handlers.items()))
        self.kinds = tuple(self._handlers)
        self.async_kinds = tuple(kind for kind, it in self._handlers.items() if it.is_async)
        self.thread_kinds = tuple(kind for kind, it in self._handlers.items() if not it.is_async)

    @classmethod
    def load(cls, modules: Sequence[str] = ()) -> "Registry":
        """Imports `modules` and what is built in. Raises HandlerError, naming module and kind."""
        found: dict[str, Handler] = {}
        for name in dict.fromkeys((*ALWAYS, *modules)):
            for new in _handlers(_imported(name)):
                old = found.setdefault(new.kind, new)
                if old.function is not new.function:
                    raise HandlerError(
                        f"handlers.modules: the kind {new.kind!r} is handled twice: by "
                        f"{_place(old.function)} and by {_place(new.function)}"
                    )
        return cls(found)

    def __contains__(self, kind: object) -> bool:
        return kind in self._handlers

    def get(self, kind: str) -> Handler | None:
        return self._handlers.get(kind)

    def payload_errors(self, kind: str, payload: Any) -> list[Fault]:
        """Why the handler of `kind` would not take `payload` (decoded): (pointer, detail) each."""
        known = self._handlers.get(kind)
        if known is None or known.adapter is None:
            return []
        return faults_at_door(known.adapter, payload)


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:  # the module is the user's: its body may do anything
        why = _not_found(exc, name) or f"{type(exc).__name__}: {exc}"
        raise HandlerError(f"handlers.modules: {name} can't be imported: {why}") from exc


def _not_found(exc: BaseException, name: str) -> str | None:
    """Where we searched for a module that isn't there; None if something else went wrong."""
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return None
    if not f"{name}.".startswith(f"{exc.name}."):
        return None  # the module is there, and imports one that isn't
    parent, _, leaf = exc.name.rpartition(".")
    if parent:
        return f"there is no module {leaf} in {parent}"
    installed = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))
    searched = [path for path in sys.path if not path.endswith(".zip")]
    searched = [path or os.getcwd() for path in searched if not path.startswith(installed)]
    return (
        f"there is no {exc.name} in {', '.join(searched) or 'this directory'} and none is "
        "installed; its directory isn't on the import path: start penstock there, or set PYTHONPATH"
    )


def _handlers(module: ModuleType) -> Iterator[Handler]:
    """The marked functions in `module`, those that it imported from elsewhere too."""
    marked = [
        (kind, it)
        for it in dict.fromkeys(it for it in vars(module).values() if inspect.isfunction(it))
        for kind in getattr(it, _MARK, ())
    ]
    if not marked:
        raise HandlerError(
            f"handlers.modules: {module.__name__} has no function marked with @handler; name the "
            "submodules that have, or import their functions in its __init__.py"
        )
    for kind, function in marked:
        if kind == KIND:
            raise HandlerError(
                f"handlers.modules: {module.__name__}: the kind {kind!r} of {_place(function)} "
                "is the server's own: give it another name"
            )
        if not _NAME.fullmatch(kind):
            raise HandlerError(
                f"handlers.modules: {module.__name__}: the kind {kind!r} of {_place(function)} "
                f"must match {NAME_PATTERN}"
            )
        yield shaped(kind, function, module.__name__)


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
