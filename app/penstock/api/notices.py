"""`notify`: who wants to be told of the end of a job or workflow; its fields, and what is wrong
with them.

In: the list as pydantic has validated it. Out: faults, or the JSON text that the job keeps.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from penstock.api.door import Reach
from penstock.api.fields import Printable
from penstock.api.problems import Fault
from penstock.domain.address import CHARS_MAX
from penstock.domain.effect import Channel, On, Wish, wishes_json

WISHES_MAX = 10
URL_MAX = 2048
_CHANNELS = (Channel.WEBHOOK, Channel.EMAIL)


def _one_channel(schema: dict[str, Any]) -> None:
    """Tells JSON Schema what `faults` finds."""
    schema["oneOf"] = [{"required": [channel.value]} for channel in _CHANNELS]


_CLOSED = ConfigDict(extra="forbid", strict=True)
Webhook = Annotated[
    Printable,
    Field(
        max_length=URL_MAX,
        description="URL to POST a signed CloudEvent to. Only public addresses, or networks that "
        "the operator allows.",
    ),
]
Email = Annotated[
    Printable,
    Field(
        max_length=CHARS_MAX,
        description="One address, without a name. Only where the operator has set up mail.",
    ),
]


@with_config(ConfigDict(**_CLOSED, json_schema_extra=_one_channel))
class NotifyBody(TypedDict):
    """Who is told of which ends: a webhook or an e-mail address."""

    on: Annotated[
        list[Literal["succeeded", "dead", "cancelled"]],
        Field(
            min_length=1,
            max_length=3,
            json_schema_extra={"uniqueItems": True},
            description="The ends to tell of; of a workflow, `dead` means `failed`.",
        ),
    ]
    webhook: NotRequired[Webhook]
    email: NotRequired[Email]


Notify = Annotated[
    list[NotifyBody],
    Field(max_length=WISHES_MAX, description="Who is told when it is over; nobody by default."),
]


def faults(asked: Sequence[Mapping[str, Any]], at: str, reach: Reach) -> Iterator[Fault]:
    """What pydantic can't find; `at` is where the job or workflow stands in its body."""
    seen: set[str] = set()
    for n, one in enumerate(asked):
        place = f"{at}/notify/{n}"
        if len(set(one["on"])) < len(one["on"]):
            yield Fault(f"{place}/on", "names an end twice")
        yield from endpoint_faults(one, place, reach)
        told = {one[channel.value] for channel in _CHANNELS if channel.value in one}
        if told & seen:
            yield Fault(place, "is told already: name an endpoint once, with all its ends")
        seen |= told


def endpoint_faults(one: Mapping[str, Any], at: str, reach: Reach) -> Iterator[Fault]:
    """What is wrong with an object that has a webhook or an e-mail address."""
    channels = [channel for channel in _CHANNELS if channel.value in one]
    if len(channels) != 1:
        yield Fault(at, "must have one of webhook and email")
        return
    (channel,) = channels
    why = reach(channel, one[channel.value])
    if why is not None:
        yield Fault(f"{at}/{channel.value}", why)


def endpoint_of(one: Mapping[str, Any]) -> tuple[Channel, str]:
    """Channel and endpoint of an object without faults."""
    channel = next(channel for channel in _CHANNELS if channel.value in one)
    return channel, one[channel.value]


def text(asked: Sequence[Mapping[str, Any]]) -> str | None:
    """As a job or workflow keeps it; None where nobody is told."""
    return wishes_json([Wish(tuple(map(On, one["on"])), *endpoint_of(one)) for one in asked])
