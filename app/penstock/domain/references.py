"""References in payloads: `{"$result": "extract", "pointer": "/rows/0"}` is a parent's result.

Pure. In: a decoded payload. Out: what it refers to and where, what is wrong with that, and the
payload with values in their place. Always holds: an object with the key `$result` is a reference or
a fault, nothing else; what was put in place of one isn't searched again.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penstock.domain.errors import PenstockError
from penstock.domain.pointer import step

KEY = "$result"
POINTER = "pointer"

# How the key stands in JSON text: any of its characters may be written as an escape.
_ESCAPED = re.compile(r"\\u00(?:24|7[2534]|6[5cC])")
_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]*", re.ASCII)

_Path = tuple["_Path", str | int] | None  # the way to a value, innermost step first


class Unresolved(PenstockError):
    """A pointer that names nothing in a value; the message says how far it got."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`at`: its JSON Pointer in the payload. `fault`: what is wrong with it; then `name` and
    `pointer` say nothing."""

    at: str
    name: str = ""
    pointer: str = ""
    fault: str | None = None


def may_refer(text: str) -> bool:
    """Whether a payload's JSON text may hold references; if not, it need not be decoded."""
    return f'"{KEY}"' in text or ("\\u00" in text and _ESCAPED.search(text) is not None)


def references(payload: Any) -> Iterator[Reference]:
    """All references of a decoded payload, in its order."""
    for holder, key, path in _found([payload]):
        yield _read(holder[key], _shown(path))


def replaced(payload: Any, answer: Callable[[Reference], Any]) -> Any:
    """The payload with `answer(reference)` in place of each. `payload` itself is changed by that.

    Raises Unresolved for a reference with a fault, and what `answer` raises.
    """
    root = [payload]
    for holder, key, path in list(_found(root)):  # what is put in isn't searched
        reference = _read(holder[key], _shown(path))
        if reference.fault is not None:
            raise Unresolved(f"{reference.at or 'the payload'}: {reference.fault}")
        holder[key] = answer(reference)
    return root[0]


def pointed(value: Any, pointer: str) -> Any:
    """What a JSON Pointer (RFC 6901) names in a decoded value. Raises Unresolved."""
    if fault := _pointer_fault(pointer):
        raise Unresolved(fault)
    for token in pointer.split("/")[1:]:
        value = _stepped(value, token.replace("~1", "/").replace("~0", "~"))
    return value


def _stepped(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        if name not in value:
            raise Unresolved(f"there is no member {step(name)[1:]!r}")
        return value[name]
    if not isinstance(value, list):
        raise Unresolved(f"{step(name)} leads into what is neither an object nor an array")
    # Compared by length first: a name may have a million digits.
    is_index = _INDEX.fullmatch(name) and len(name) <= len(str(len(value)))
    if not is_index or int(name) >= len(value):
        raise Unresolved(f"{step(name)[1:]!r} is no index of an array of {len(value)}")
    return value[int(name)]


def _read(value: dict[str, Any], at: str) -> Reference:
    """What an object with the key `$result` refers to."""
    name, pointer = value[KEY], value.get(POINTER, "")
    if not isinstance(name, str):
        return Reference(at, fault=f"{KEY} must be the name of a parent")
    if not value.keys() <= {KEY, POINTER}:
        return Reference(at, fault=f"an object with {KEY} may have only {POINTER} besides")
    if not isinstance(pointer, str):
        return Reference(at, fault=f"{POINTER} must be a JSON Pointer")
    if fault := _pointer_fault(pointer):
        return Reference(at, fault=fault)
    return Reference(at, name, pointer)


def _pointer_fault(pointer: str) -> str | None:
    if pointer and not pointer.startswith("/"):
        return "a JSON Pointer is empty or begins with /"
    if _BAD_ESCAPE.search(pointer):
        return "in a JSON Pointer only 0 or 1 may follow ~"
    return None


def _found(root: list[Any]) -> Iterator[tuple[Any, Any, _Path]]:
    """Where references stand below `root[0]`, in its order: what holds each, its key there, and
    the way to it. Without recursion: whoever asks may not have looked at the depth yet."""
    todo: list[tuple[Any, Any, _Path]] = [(root, 0, None)]
    while todo:
        holder, key, path = todo.pop()
        value = holder[key]
        if isinstance(value, dict) and KEY in value:
            yield holder, key, path
        elif isinstance(value, dict | list):
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            deeper = [(value, k, (path, k)) for k, v in inside if isinstance(v, dict | list)]
            todo.extend(reversed(deeper))


def _shown(path: _Path) -> str:
    steps = []
    while path is not None:
        path, name = path
        steps.append(step(name))
    return "".join(reversed(steps))
