"""What a job sees of its parents: their states and results, and these in place of references.

In: what the worker knows of a job's kin. Out: views for its handler, and the payload that it is
called with. Always holds: nothing is decoded that nobody asks for, and what a handler changes in a
parent's result no other job sees.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import orjson

from penstock.domain import nesting
from penstock.domain.ids import text
from penstock.domain.job import State
from penstock.domain.references import Reference, Unresolved, may_refer, pointed, replaced
from penstock.domain.workflow import Kin, Parent
from penstock.handlers.errors import PermanentError
from penstock.handlers.text import cut

_SHOWN_MAX = 200  # bytes of a name or pointer that an error repeats
_UNDECODED = object()


class ParentJob:
    """A parent as its child's handler sees it."""

    __slots__ = ("_parent", "_result", "_withheld")

    def __init__(self, parent: Parent, withheld: int) -> None:
        self._parent = parent
        self._withheld = withheld
        self._result: Any = _UNDECODED

    @property
    def id(self) -> str:
        return text(self._parent.id)

    @property
    def name(self) -> str:
        """In its workflow; elsewhere its id."""
        return self._parent.name

    @property
    def state(self) -> str:
        """`succeeded`, `dead`, `cancelled` or `skipped`; with `any_*` perhaps not over yet."""
        return self._parent.state.value

    @property
    def succeeded(self) -> bool:
        return self._parent.state is State.SUCCEEDED

    @property
    def result(self) -> Any:
        """What it returned; None if it did not succeed. Raises PermanentError if the results of
        all parents together are more than a job may get."""
        if self._result is _UNDECODED:
            self._result = orjson.loads(_kept(self._parent, self._withheld))
        return self._result


def seen(kin: Kin) -> Mapping[str, ParentJob]:
    """The parents by name, in the order of `depends_on`."""
    return MappingProxyType(
        {name: ParentJob(parent, kin.withheld) for name, parent in kin.parents.items()}
    )


def resolved(payload: str, kin: Kin, bytes_max: int) -> str:
    """The payload's JSON text with parents' results in place of its references, in `bytes_max` at
    most. Raises PermanentError."""
    if not may_refer(payload):
        return payload
    return _text(_filled(orjson.loads(payload), kin, bytes_max), bytes_max)


def resolved_around(payload: str, kin: Kin, bytes_max: int) -> str:
    """The same for a job of kind `workflow`: what its payload's jobs refer to themselves stays."""
    if not kin.parents or not may_refer(payload):
        return payload
    workflow = orjson.loads(payload)
    aside = nesting.set_aside(workflow)
    workflow = _filled(workflow, kin, bytes_max)
    nesting.put_back(aside)
    return _text(workflow, bytes_max)


def _filled(payload: Any, kin: Kin, bytes_max: int) -> Any:
    try:
        return replaced(payload, _Pieces(kin, bytes_max).piece)
    except Unresolved as error:
        raise PermanentError(str(error), "reference-unresolved") from None


def _text(payload: Any, bytes_max: int) -> str:
    encoded = orjson.dumps(payload)
    if len(encoded) > bytes_max:
        raise _too_large(bytes_max)
    return encoded.decode()


class _Pieces:
    """What stands for references, as JSON text: each is made once, and together they are bounded
    before they are put together."""

    def __init__(self, kin: Kin, bytes_max: int) -> None:
        self._kin = kin
        self._bytes_max = bytes_max
        self._left = bytes_max
        self._made: dict[tuple[str, str], bytes] = {}

    def piece(self, reference: Reference) -> Any:
        key = (reference.name, reference.pointer)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(reference)
        self._left -= len(made)
        if self._left < 0:
            raise _too_large(self._bytes_max)
        return orjson.Fragment(made)

    def _make(self, reference: Reference) -> bytes:
        parent = self._parent(reference)
        result = _kept(parent, self._kin.withheld)
        if parent.state is not State.SUCCEEDED or not reference.pointer:
            return result.encode()
        try:
            return orjson.dumps(pointed(_decoded(result), reference.pointer))
        except Unresolved as error:
            pointer = cut(reference.pointer, _SHOWN_MAX)
            name = cut(parent.name, _SHOWN_MAX)
            raise Unresolved(f"{pointer} of the result of {name!r}: {error}") from None

    def _parent(self, reference: Reference) -> Parent:
        """Outside of workflows a parent goes by its id, whose letters may be large."""
        parents, name = self._kin.parents, reference.name
        parent = parents.get(name) or parents.get(name.lower())
        if parent is None:
            at = reference.at or "the payload"
            raise Unresolved(f"{at}: {cut(name, _SHOWN_MAX)!r} is no parent of this job")
        return parent


@lru_cache(maxsize=4)
def _decoded(result: str) -> Any:
    """Siblings point into the same results, one after the other. Nobody may change it."""
    return orjson.loads(result)


def _kept(parent: Parent, withheld: int) -> str:
    if parent.state is not State.SUCCEEDED:
        return "null"
    if withheld:
        raise PermanentError(
            f"the results of this job's parents have {withheld} bytes, more than a job may get: "
            "have them return less, or where to find it",
            "parents-too-large",
        )
    return parent.result


def _too_large(bytes_max: int) -> PermanentError:
    return PermanentError(
        f"with its parents' results in place the payload has more than {bytes_max} bytes: point "
        "to a part of them",
        "payload-too-large",
    )
