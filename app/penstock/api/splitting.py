"""A large body in parts: the items of its lists are found without being decoded.

In: the bytes of a JSON object. Out: its members; a list is a list of `memoryview`s, one an item,
anything else is decoded. Why: `orjson` takes 240 ms for 16 MiB of empty lists and holds everybody
up for so long (a thread doesn't help, it keeps the GIL); one item of a batch is bounded.
Always holds: what is taken here and whose parts can all be decoded is JSON, and nothing else is;
no regular expression looks back, so each byte is passed once.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.api.pace import Pace
from penstock.api.problems import ERRORS_MAX, Fault, Problem, invalid
from penstock.domain.pointer import step

_SPACE = rb"[ \t\r\n]{0,65536}+"  # more of it in one place is nobody's formatting
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NAME = re.compile(rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE, re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^\s"\[\]{},:]++', re.DOTALL)
# What stands between brackets; 2000 pieces of it at most, some 0.2 ms.
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb"){0,2000}+([\[\]{}])?+", re.DOTALL)
_LEADING = re.compile(_SPACE)
_TO_CONTAINER = re.compile(rb'(?:[^"\[{]++|' + _STRING + rb"){0,2000}+([\[{])?+", re.DOTALL)
_OPENING = re.compile(_SPACE + rb"\{" + _SPACE)
_COMMA = re.compile(_SPACE + rb"," + _SPACE)
_END_OF_LIST = re.compile(_SPACE + rb"\]")
_END_OF_OBJECT = re.compile(_SPACE + rb"\}")
_END_OF_TEXT = re.compile(_SPACE + rb"\Z")
_OTHER_VALUE = re.compile(_SPACE + rb'["\[tfn0-9-]')

_NAMES_MAX = ERRORS_MAX + 2  # of members that are looked at: so many can't all be known names


@dataclass(frozen=True, slots=True)
class Limits:
    """What one item may come to, and how many there may be in a list."""

    item_max_bytes: int
    containers_max: int
    items_max: int


class Splitter:
    """Splits one body. `decode` turns the bytes of one value into it, or raises a Problem."""

    def __init__(self, raw: bytes, limits: Limits, pace: Pace) -> None:
        self._raw = raw
        self._at = 0
        self._limits = limits
        self._pace = pace

    async def members(self, decode: Callable[[bytes], Any]) -> dict[str, Any]:
        """The object's members; of very many names only the first 102. Raises 400 for what
        isn't JSON, 413 for a value that is too large, 422 for what isn't an object."""
        if _OTHER_VALUE.match(self._raw):
            raise invalid(Fault("", "must be a JSON object"))
        self._demand(_OPENING)
        found: dict[str, Any] = {}
        if not self._skip(_END_OF_OBJECT):
            for _ in range(_NAMES_MAX):
                name = decode(self._demand(_NAME)[1])
                found[name] = await self._member(name, decode)
                if not self._skip(_COMMA):
                    break
                await self._pace.breathe()
            else:
                return found
            self._demand(_END_OF_OBJECT)
        self._demand(_END_OF_TEXT)
        return found

    async def _member(self, name: str, decode: Callable[[bytes], Any]) -> Any:
        if self._raw[self._at : self._at + 1] == b"[":
            self._at += 1
            return await self._items(step(name))
        start = self._at
        await self._pass(step(name))
        return decode(self._raw[start : self._at])

    async def _items(self, place: str) -> list[memoryview]:
        whole = memoryview(self._raw)
        found: list[memoryview] = []
        if self._skip(_END_OF_LIST):
            return found
        self._skip(_LEADING)
        while True:
            start = self._at
            await self._pass(f"{place}/{len(found)}")
            found.append(whole[start : self._at])
            if not self._skip(_COMMA):
                break
            if len(found) >= self._limits.items_max:
                detail = f"must have 1 to {self._limits.items_max} items, has more"
                raise invalid(Fault(place, detail))
            if self._pace.is_over:
                await self._pace.breathe()
        self._demand(_END_OF_LIST)
        return found

    async def _pass(self, place: str) -> None:
        """Goes behind the value that begins here."""
        raw, stop = self._raw, min(self._at + self._limits.item_max_bytes, len(self._raw))
        first = raw[self._at : self._at + 1]
        if first not in (b"[", b"{"):
            found = _SCALAR.match(raw, self._at, stop)
            if found is None and first != b'"':
                raise self._broken()
            if found is None or found.end() == stop:
                raise self._unfinished(stop, place)
            self._at = found.end()
            return
        at, depth, brackets, match = self._at, 0, 0, _TO_BRACKET.match
        brackets_max = 2 * self._limits.containers_max
        while True:
            found = match(raw, at, stop)
            if found is None or found.end() == at:
                raise self._unfinished(stop, place)
            at = found.end()
            if found.lastindex:
                depth += 1 if raw[at - 1] in b"[{" else -1
                if not depth:
                    break
                brackets += 1
                if brackets >= brackets_max:
                    raise crowded(place, self._limits.containers_max)
            if self._pace.is_over:
                await self._pace.breathe()
        self._at = at

    def _unfinished(self, stop: int, place: str) -> Problem:
        """A value that doesn't end before `stop`: it is too large, or the text ends too early."""
        if stop == len(self._raw):
            return self._broken()
        fault = Fault(place, f"may have {self._limits.item_max_bytes} bytes at most")
        return Problem("payload-too-large", f"{place}: {fault.detail}", faults=[fault])

    def _skip(self, pattern: re.Pattern[bytes]) -> bool:
        found = pattern.match(self._raw, self._at)
        if found is None:
            return False
        self._at = found.end()
        return True

    def _demand(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        found = pattern.match(self._raw, self._at)
        if found is None:
            raise self._broken()
        self._at = found.end()
        return found

    def _broken(self) -> Problem:
        return Problem("not-json", f"the body isn't JSON: it goes wrong after byte {self._at}")


def is_crowded(raw: bytes, containers_max: int) -> bool:
    """Whether there are more objects and lists in a text, brackets in strings aside."""
    if raw.count(b"{") + raw.count(b"[") <= containers_max:
        return False
    at, left = 0, containers_max
    while left >= 0:
        found = _TO_CONTAINER.match(raw, at)
        if found is None or found.end() == at:
            return False
        at = found.end()
        left -= 1 if found.lastindex else 0
    return True


def crowded(place: str, containers_max: int) -> Problem:
    return invalid(Fault(place, f"holds more than {containers_max} objects and lists"))
