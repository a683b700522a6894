"""What the document says of the calls of deliveries: see `openapi_calls`."""

from collections.abc import Mapping

from penstock.api import deliveries
from penstock.api import letter_shapes as shapes
from penstock.api.openapi_parts import Call, Gives
from penstock.api.routes import Handler

_PENDING = {"outcome": "pending", "finished_at": None, "next_try_at": "2026-11-18T11:06:41.207Z"}
_TEST = {
    **_PENDING,
    "event": "penstock.test.v1",
    "job_id": None,
    "attempt": 0,
    "state": "test",
    "tries": 0,
}

CALLS_OF_DELIVERIES: Mapping[Handler, Call] = {
    deliveries.list_all: Call(
        "listDeliveries",
        "notifications",
        "List deliveries",
        "Messages about ends of jobs and workflows, the newest ends first: those that are still to "
        "be delivered, and what became of the others. A page may be short and still have a "
        "`next_cursor`: go on until that is null.",
        {200: Gives("A page of deliveries.", shapes.Deliveries)},
    ),
    deliveries.show: Call(
        "showDelivery",
        "notifications",
        "Look at a delivery",
        "The delivery as it stands.",
        {200: Gives("The delivery.", shapes.Delivery)},
    ),
    deliveries.resend: Call(
        "resendDelivery",
        "notifications",
        "Send it again",
        "Makes it due at once, under the `message_id` that its receiver knows; one that is over "
        "gets all its tries again. One that is being sent just now is left alone. Where its "
        "endpoint was given up, enable that first.",
        {200: Gives("The delivery.", shapes.Delivery, example=_PENDING)},
        problems=("gone", "endpoint-disabled"),
    ),
    deliveries.endpoints: Call(
        "listEndpoints",
        "notifications",
        "List endpoints that fail",
        "Where nothing arrives: those that are tried less and less, and those that were given up. "
        "For tokens that open all queues.",
        {200: Gives("A page of endpoints.", shapes.Endpoints)},
    ),
    deliveries.enable: Call(
        "enableEndpoint",
        "notifications",
        "Take an endpoint back",
        "Forgets that it failed: what waits for it is tried at once.",
        {200: Gives("The endpoint.", shapes.Enabled)},
        problems=("not-found",),
        samples={"by id": {"id": "9f86d081884c7d65"}},
    ),
    deliveries.test: Call(
        "testNotification",
        "notifications",
        "Send a test",
        "Sends a message of type `penstock.test.v1`, which tells of nothing, to a webhook, to an "
        "address, or to whom a rule of the configuration tells: at once, whatever the rule says of "
        "quiet hours, throttling and groups. Look at the delivery to see what becomes of it.",
        {202: Gives("The delivery.", shapes.Delivery, example=_TEST)},
        samples={"webhook": {"webhook": "https://example.com/hook"}},
    ),
}
