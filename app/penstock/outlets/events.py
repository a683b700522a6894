"""What all outlets say of a message, as CloudEvents 1.0 has it."""

from penstock.clock import rfc3339
from penstock.domain import ids
from penstock.domain.effect import Message
from penstock.domain.trace import headers_of

SOURCE = "/penstock"  # ids are unique among all replicas of one database


def attributes(message: Message) -> dict[str, str]:
    """The attributes of an event, without its data and their type."""
    effect = message.effect
    subject = effect.job or effect.workflow
    told = {
        "specversion": "1.0",
        "id": effect.dedupe,
        "source": SOURCE,
        "type": effect.event,
        "time": rfc3339(effect.at),
    }
    if subject is not None:
        told["subject"] = ids.text(subject)
    return told | headers_of(message.traceparent)
