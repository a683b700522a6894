"""Every way to write a handler's parameters, and what the payload must be."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from penstock.handlers import BadPayload, Context, HandlerError
from penstock.handlers.calling import shaped
from tests.handlers.factory import context


class Point(BaseModel):
    x: int
    y: int = 0


@dataclass
class Size:
    width: int


CTX = context()


def nothing() -> str:
    return "()"


def only_payload(payload: Any) -> Any:
    return payload


def only_context(ctx: Any) -> Any:
    return ctx is CTX


def unannotated(anything, context):  # type: ignore[no-untyped-def]
    return anything, context is CTX


def payload_first(payload: Point, ctx: Context) -> Any:
    return payload, ctx is CTX


def context_first(it: Context, point: Point) -> Any:
    return it is CTX, point


def context_by_type(x: Context) -> Any:
    return x is CTX


def payload_called_context(context: Point) -> Any:
    return context


def payload_by_name(ctx: Context, payload: Point, more: int = 5, *rest: int, **named: int) -> Any:
    return ctx is CTX, payload, more, rest, named


def plain_types(payload: dict[str, int]) -> Any:
    return payload


def a_dataclass(payload: Size) -> Any:
    return payload


def annotated(payload: Annotated[int, Field(ge=1)]) -> Any:
    return payload


def optional(payload: Point | None = None) -> Any:
    return payload


@pytest.mark.parametrize(
    ("function", "payload", "wanted"),
    [
        (nothing, '{"x": 1}', "()"),
        (only_payload, '{"x": [1, null]}', {"x": [1, None]}),
        (only_payload, "null", None),
        (only_payload, '"text"', "text"),
        (only_context, "null", True),
        (unannotated, "[1]", ([1], True)),
        (payload_first, '{"x": 1}', (Point(x=1), True)),
        (context_first, '{"x": 1, "y": 2}', (True, Point(x=1, y=2))),
        (context_by_type, "null", True),
        (payload_called_context, '{"x": 1}', Point(x=1)),
        (payload_by_name, '{"x": 1}', (True, Point(x=1), 5, (), {})),
        (plain_types, '{"a": 1}', {"a": 1}),
        (a_dataclass, '{"width": 3}', Size(3)),
        (annotated, "1", 1),
        (optional, "null", None),
    ],
)
def test_a_handler_is_called_as_it_is_written(
    function: Callable[..., Any], payload: str, wanted: Any
) -> None:
    assert shaped("k", function, "m").invoke(payload, CTX) == wanted


async def test_an_async_handler_gives_a_coroutine_to_await() -> None:
    async def later(payload: Point) -> int:
        return payload.x

    handler = shaped("k", later, "m")
    coroutine = handler.invoke('{"x": 7}', CTX)
    assert handler.is_async
    assert inspect.iscoroutine(coroutine)
    assert await coroutine == 7


def keyword_only(payload: Any, *, ctx: Context) -> None: ...


def too_many(payload: Any, ctx: Context, more: int) -> None: ...


def out_of_place(more: int = 1, payload: Any = None) -> None: ...


def generator(payload: Any) -> Any:
    yield payload


async def async_generator(payload: Any) -> Any:
    yield payload


def not_a_type(payload: object()) -> None: ...  # type: ignore[valid-type]


@pytest.mark.parametrize(
    "function",
    [keyword_only, too_many, out_of_place, generator, async_generator, not_a_type],
)
def test_a_handler_that_can_not_be_called_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(HandlerError, match=r"users\.module: handler 'some-kind': "):
        shaped("some-kind", function, "users.module")


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[Point]
    by: dict[str, int] = {}
    either: Point | int = 0

    @field_validator("items")
    @classmethod
    def _few(cls, items: list[Point]) -> list[Point]:
        if len(items) > 2:
            raise ValueError("at most two")
        return items


def order(payload: Order) -> Order:
    return payload


@pytest.mark.parametrize(
    ("payload", "pointers"),
    [
        ("null", [""]),
        ("[]", [""]),
        ("{}", ["/items"]),
        ('{"items": [{}]}', ["/items/0/x"]),
        ('{"items": [{"x": 1}, {"x": "a"}]}', ["/items/1/x"]),
        ('{"items": [], "more": 1}', ["/more"]),
        ('{"items": [], "a/b~c": 1}', ["/a~1b~0c"]),
        ('{"items": [], "by": {"a/b": "x"}}', ["/by/a~1b"]),
        ('{"items": [{"x":1},{"x":1},{"x":1}]}', ["/items"]),
        ('{"items": [], "either": "x"}', ["/either", "/either"]),
        ('{"items": 1, "by": 1}', ["/items", "/by"]),
    ],
)
def test_a_bad_payload_fails_for_good_and_points_to_the_fault(
    payload: str, pointers: list[str]
) -> None:
    with pytest.raises(BadPayload) as caught:
        shaped("order", order, "m").invoke(payload, CTX)
    assert [fault["pointer"] for fault in caught.value.details] == pointers
    assert all(fault["detail"] for fault in caught.value.details)
    assert not caught.value.retryable


def test_a_fault_is_told_in_the_validators_own_words() -> None:
    with pytest.raises(BadPayload) as caught:
        shaped("order", order, "m").invoke('{"items": [{"x":1},{"x":1},{"x":1}]}', CTX)
    assert caught.value.details == [{"pointer": "/items", "detail": "at most two"}]
