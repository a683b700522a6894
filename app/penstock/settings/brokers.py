"""The settings of what takes dead letters, and of the alerts on them."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from penstock.domain import alert
from penstock.domain.effect import Channel
from penstock.settings.notifications import EmailAddress
from penstock.settings.section import Section
from penstock.settings.tls import demand_pair
from penstock.settings.values import DAY_S, KIB, MIB, PORT_MAX, CaFile

Broker = Literal["none", "kafka", "rabbitmq"]

TOPIC = "penstock.dead-letters.v1"

_PLACE = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def _places(text: str) -> str:
    for part in text.split(","):
        place = _PLACE.fullmatch(part.strip())
        if place is None or not 0 < int(place[2]) <= PORT_MAX:
            raise ValueError("must be host:port, several of them with commas between")
    return text


def _amqp_url(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("amqp://", "amqps://")):
        raise ValueError("must begin with amqp:// or amqps://")
    return secret


Places = Annotated[str, AfterValidator(_places)]
AmqpUrl = Annotated[SecretStr, AfterValidator(_amqp_url)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", min_length=1, max_length=249)]


class Kafka(Section):
    """Dead letters to Kafka."""

    bootstrap_servers: Places | None = Field(
        None, description="where it is: host:port, several of them with commas between"
    )
    topic: Topic = Field(TOPIC, description="topic that dead letters go to")
    enable_idempotence: bool = Field(
        True, description="producer that writes nothing twice; false for brokers without, as Tansu"
    )
    message_max_bytes: int = Field(
        1_000_000,
        ge=16 * KIB,
        le=64 * MIB,
        description="largest message that the broker takes; a reference stands for a larger one",
    )
    tls: bool = Field(False, description="whether to speak TLS")
    ca_file: CaFile | None = Field(
        None, description="certificates to trust (PEM); none = the system's"
    )
    cert_file: str | None = Field(None, min_length=1, description="our certificate (PEM)")
    key_file: str | None = Field(None, min_length=1, description="its key (PEM, no password)")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="how to log in; none = not at all"
    )
    username: str | None = Field(None, min_length=1, description="name to log in with")
    password: SecretStr | None = Field(None, description="password to log in with")

    @model_validator(mode="after")
    def _logs_in_safely(self) -> Self:
        if self.sasl_mechanism and not (self.username and self.password):
            raise ValueError(
                "kafka.sasl_mechanism needs kafka.username and kafka.password: set "
                "PENSTOCK_KAFKA__PASSWORD, or PENSTOCK_KAFKA__PASSWORD_FILE to a file that holds it"
            )
        if self.sasl_mechanism == "PLAIN" and not self.tls:
            raise ValueError(
                "kafka.sasl_mechanism PLAIN shows the password to who listens: "
                "set kafka.tls, or use SCRAM-SHA-512"
            )
        for name in ("ca_file", "cert_file"):
            if getattr(self, name) and not self.tls:
                raise ValueError(f"kafka.{name} is of no use without kafka.tls")
        demand_pair("kafka", self.cert_file, self.key_file)
        return self


class RabbitMq(Section):
    """Dead letters to RabbitMQ."""

    url: AmqpUrl | None = Field(
        None, description="where it is: amqps://user:password@host:port/vhost"
    )
    exchange: str = Field(
        "", max_length=127, description="exchange that dead letters go to; empty = the default one"
    )
    routing_key: str = Field(
        TOPIC, min_length=1, max_length=255, description="routing key; the queue's name by default"
    )
    message_max_bytes: int = Field(
        8 * MIB,
        ge=16 * KIB,
        le=512 * MIB,
        description="largest message that the broker takes; a reference stands for a larger one",
    )
    ca_file: CaFile | None = Field(
        None, description="certificates to trust (PEM); none = the system's"
    )
    cert_file: str | None = Field(None, min_length=1, description="our certificate (PEM)")
    key_file: str | None = Field(None, min_length=1, description="its key (PEM, no password)")

    @model_validator(mode="after")
    def _speaks_tls(self) -> Self:
        for name in ("ca_file", "cert_file"):
            is_plain = self.url and not self.url.get_secret_value().startswith("amqps://")
            if getattr(self, name) and is_plain:
                raise ValueError(
                    f"rabbitmq.{name} is of no use unless rabbitmq.url begins with amqps://"
                )
        demand_pair("rabbitmq", self.cert_file, self.key_file)
        return self


class AlertRule(Section):
    """Tells of dead letters when there are `count` of them within `within_s`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    queue: str = Field("*", max_length=100)
    kind: str = Field("*", max_length=100)
    error_type: str = Field("*", max_length=200)
    by: tuple[Literal["queue", "kind", "error_type"], ...] = Field((), max_length=3)
    count: int = Field(1, ge=1, le=100_000)
    within_s: float = Field(300, ge=1, le=7 * DAY_S)
    webhook: str | None = Field(None, min_length=1, max_length=2048, repr=False)
    email: EmailAddress | None = None

    @model_validator(mode="after")
    def _tells_one_at_most(self) -> Self:
        if self.webhook is not None and self.email is not None:
            raise ValueError("has a webhook and an email: make two rules of it")
        return self

    def __str__(self) -> str:
        """Without whom it tells: there are receivers whose URL is a secret."""
        return f"{self.name}: {self.count} within {self.within_s:g} s"

    def as_rule(self) -> alert.AlertRule:
        channel = Channel.WEBHOOK if self.webhook else Channel.EMAIL if self.email else None
        return alert.AlertRule(
            self.name,
            self.queue,
            self.kind,
            self.error_type,
            self.by,
            self.count,
            self.within_s,
            channel,
            self.webhook or self.email or "",
        )


class Alerts(Section):
    """What `penstock dlq-consumer` tells of."""

    group: Topic = Field("penstock-alerts", description="consumer group that reads the topic")
    rules: tuple[AlertRule, ...] = Field(
        (),
        max_length=100,
        repr=False,
        description="rules: {name, queue, kind, error_type, by, count, within_s, webhook, email}",
    )

    @model_validator(mode="after")
    def _tells_rules_apart(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError("alerts.rules has two of the same name")
        return self
