"""Which broker takes dead letters: the one place that knows both."""

from typing import Protocol

from penstock.domain.errors import WrongSetting
from penstock.outlets.outlet import Outlet
from penstock.settings import Settings


class Broker(Outlet, Protocol):
    """Kafka or RabbitMQ. `why`: what is wrong while it is away, else None."""

    name: str

    @property
    def why(self) -> str | None: ...

    async def fault(self) -> str | None:
        """Connects once and lets go again: what kept us from it, or None."""
        ...

    def is_away(self) -> bool:
        """Whether it is known to be; the first look begins to connect, in the background."""
        ...


def dead_letter_outlet(settings: Settings) -> Broker | None:
    """The outlet that the settings name; None: dead letters stay in Postgres. Raises WrongSetting
    when the library of RabbitMQ isn't there."""
    match settings.broker:
        case "none":
            return None
        case "kafka":
            from penstock.outlets.kafka import Kafka  # noqa: PLC0415 - not loaded without need

            return Kafka(settings.kafka)
        case "rabbitmq":
            try:
                from penstock.outlets.rabbitmq import RabbitMq  # noqa: PLC0415 - an extra
            except ImportError as error:
                raise WrongSetting(
                    f"broker is rabbitmq, but {error.name} is not installed: "
                    "install penstock[rabbitmq]"
                ) from error
            return RabbitMq(settings.rabbitmq)


def dead_letter_endpoint(settings: Settings) -> str | None:
    """What `Policy.dead_letters` is: the topic or the routing key of dead letters."""
    match settings.broker:
        case "none":
            return None
        case "kafka":
            return settings.kafka.topic
        case "rabbitmq":
            return settings.rabbitmq.routing_key
