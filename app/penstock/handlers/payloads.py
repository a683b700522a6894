"""What is wrong with a payload: JSON Pointers into it, and a sentence each. Pure.

The same check serves the door (422) and the run (a final failure), so both always agree; but the
door leaves payloads of very many values to the run (decision 0008).
"""

import re
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from penstock.domain import pointer

_FAULTS_MAX = 50
_TOLD_MAX = 1000  # faults that pydantic may describe: its descriptions of 100,000 take 200 ms
_VALUES_AT_DOOR_MAX = 5000  # in a payload: pydantic takes about 2 us for each, all in one go
_IN_OUR_WORDS = {
    "Field required": "is required",
    "Extra inputs are not permitted": "is not a known field",
}
_SHOULD = re.compile(r"^[A-Z]\w* should ")  # "Input should be …", "String should have …"

Fault = tuple[str, str]  # pointer, detail


def faults_at_door(adapter: TypeAdapter[Any], payload: Any) -> list[Fault]:
    """The faults of a payload that was decoded already; none if `adapter` takes it.

    None either for a payload of more than 5,000 values: the run will tell what is wrong with it.
    """
    if _holds_more_than(_VALUES_AT_DOOR_MAX, payload):
        return []
    try:
        adapter.validate_json(orjson.dumps(payload))
    except ValidationError as exc:
        return faults_of(exc, payload)
    except orjson.JSONEncodeError:
        return [("", "is nested too deeply")]
    except Exception:  # a validator of the user's has a bug: the job will show it when it runs
        return []
    return []


def faults_of(exc: ValidationError, payload: Any) -> list[Fault]:
    """pydantic's errors with pointers into `payload`."""
    if exc.error_count() > _TOLD_MAX:
        return [("", f"breaks more than {_TOLD_MAX} rules of its kind")]
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    return [
        (_pointer(error["loc"], payload, missing=error["type"] == "missing"), _detail(error["msg"]))
        for error in errors[:_FAULTS_MAX]
    ]


def _holds_more_than(count: int, payload: Any) -> bool:
    """Looks at no more than `count` values."""
    todo = [payload]
    while todo:
        value = todo.pop()
        if isinstance(value, (dict, list)):
            count -= len(value)
            if count < 0:
                return True
            inside = value.values() if isinstance(value, dict) else value
            todo.extend(child for child in inside if isinstance(child, (dict, list)))
    return False


def _detail(message: str) -> str:
    """pydantic's words in the voice of the door: what the field must be."""
    text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return _IN_OUR_WORDS.get(text) or _SHOULD.sub("must ", text)


def _pointer(loc: tuple[int | str, ...], payload: Any, *, missing: bool) -> str:
    """RFC 6901. pydantic's location also names union members and the like: those are left out."""
    path, at = "", payload
    for place, step in enumerate(loc, 1):
        if _has(at, step):
            at = at[step]
        elif not (missing and place == len(loc)):
            continue
        path += pointer.step(step)
    return path


def _has(value: Any, step: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value
