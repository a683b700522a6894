"""What is sent about deliveries: an endpoint to take back, somebody to send a test to."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from penstock.api.fields import Fingerprint, Printable
from penstock.api.notices import URL_MAX, Email, Webhook

_CLOSED = ConfigDict(extra="forbid", strict=True)


def _one(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [name]} for name in ("webhook", "email", "rule")]


def _one_name(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": ["id"]}, {"required": ["endpoint"]}]


@with_config(ConfigDict(**_CLOSED, json_schema_extra=_one_name))
class EndpointBody(TypedDict, total=False):
    """Which endpoint to take back, by one of these."""

    id: Annotated[Fingerprint, Field(description="Its `id` in the list.")]
    endpoint: Annotated[
        Printable,
        Field(max_length=URL_MAX, description="Its `id`, or the whole URL or address."),
    ]


@with_config(ConfigDict(**_CLOSED, json_schema_extra=_one))
class TestBody(TypedDict, total=False):
    """Whom to send a test to: a webhook, an e-mail address, or whom a rule tells."""

    webhook: Webhook
    email: Email
    rule: Annotated[
        Printable,
        Field(max_length=64, description="The `name` of one of `notifications.rules`."),
    ]


ENDPOINT_BODY: TypeAdapter[EndpointBody] = TypeAdapter(EndpointBody)
TEST_BODY: TypeAdapter[TestBody] = TypeAdapter(TestBody)
