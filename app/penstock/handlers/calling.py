"""How a handler's function is called: decided once from its signature, then only followed.

A function takes its payload (the parameter named `payload`, else the first that is not the
context) and its context (annotated `Context`, or named `ctx` or `context`), both, one or none, in
any order.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_type_hints

import orjson
from pydantic import TypeAdapter, ValidationError

from penstock.handlers.context import Context
from penstock.handlers.errors import BadPayload, HandlerError
from penstock.handlers.payloads import faults_of

_ANYTHING = (inspect.Parameter.empty, Any, object)
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SWALLOWING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Shape(Enum):
    NOTHING = "()"
    PAYLOAD = "(payload)"
    CONTEXT = "(context)"
    PAYLOAD_CONTEXT = "(payload, context)"
    CONTEXT_PAYLOAD = "(context, payload)"


@dataclass(frozen=True, slots=True)
class Handler:
    """One kind's function. Call it as `function(*arguments(payload, ctx))`, or by `invoke`."""

    kind: str
    function: Callable[..., Any]
    is_async: bool
    shape: Shape
    adapter: TypeAdapter[Any] | None  # None: the payload is passed on as it is

    def arguments(self, payload_json: str, ctx: Context) -> tuple[Any, ...]:
        """What the function is called with. Raises BadPayload."""
        shape = self.shape
        if shape is Shape.NOTHING:
            return ()
        if shape is Shape.CONTEXT:
            return (ctx,)
        payload = self._payload(payload_json)
        if shape is Shape.PAYLOAD:
            return (payload,)
        return (payload, ctx) if shape is Shape.PAYLOAD_CONTEXT else (ctx, payload)

    def invoke(self, payload_json: str, ctx: Context) -> Any:
        """The function's result, or for an `async def` the coroutine to await."""
        return self.function(*self.arguments(payload_json, ctx))

    def _payload(self, payload_json: str) -> Any:
        if self.adapter is None:
            return None if payload_json == "null" else orjson.loads(payload_json)
        try:
            return self.adapter.validate_json(payload_json)
        except ValidationError as exc:
            raise BadPayload(self.kind, faults_of(exc, orjson.loads(payload_json))) from None


def shaped(kind: str, function: Callable[..., Any], module: str) -> Handler:
    """The handler that `function` makes. Raises HandlerError, naming `module` and `kind`."""
    try:
        shape, wanted = _shape(function)
        adapter = None if wanted in _ANYTHING else TypeAdapter(wanted)
        return Handler(kind, function, inspect.iscoroutinefunction(function), shape, adapter)
    except Exception as exc:  # annotations are the user's: looking at them may raise anything
        raise HandlerError(f"handlers.modules: {module}: handler {kind!r}: {exc}") from exc


def _shape(function: Callable[..., Any]) -> tuple[Shape, Any]:
    """The way to call `function`, and its payload's annotation."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("a handler returns its result, it can't yield")
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    by_place = [it for it in parameters if it.kind in _BY_PLACE]
    context = next((it for it in by_place if _is_context(it, hints)), None)
    rest = [it for it in by_place if it is not context]
    payload = next((it for it in rest if it.name == "payload"), rest[0] if rest else None)
    taken = [it for it in by_place if it in (payload, context)]
    _check(parameters, taken)
    wanted = hints.get(payload.name, Any) if payload else Any
    return _SHAPES[tuple("payload" if it is payload else "context" for it in taken)], wanted


_SHAPES: dict[tuple[str, ...], Shape] = {
    (): Shape.NOTHING,
    ("payload",): Shape.PAYLOAD,
    ("context",): Shape.CONTEXT,
    ("payload", "context"): Shape.PAYLOAD_CONTEXT,
    ("context", "payload"): Shape.CONTEXT_PAYLOAD,
}


def _is_context(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    hint = hints.get(parameter.name)
    return hint is Context or (hint in (None, Any) and parameter.name in ("ctx", "context"))


def _check(parameters: Sequence[inspect.Parameter], taken: list[inspect.Parameter]) -> None:
    """What isn't taken must do without a value, and what is must come first."""
    for parameter in parameters:
        if parameter in taken or parameter.kind in _SWALLOWING:
            continue
        if parameter.default is inspect.Parameter.empty:
            raise TypeError(f"parameter {parameter.name!r} is neither the payload nor a Context")
    if list(parameters[: len(taken)]) != taken:
        raise TypeError("payload and context must come before all other parameters")
