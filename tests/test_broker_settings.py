"""Settings of the broker: what goes together, and what a wrong one says."""

from pathlib import Path
from typing import Any

import pytest

from penstock.outlets.brokers import dead_letter_endpoint, dead_letter_outlet
from penstock.outlets.kafka import Kafka
from penstock.outlets.rabbitmq import RabbitMq
from penstock.settings import SettingsError, describe, load
from tests.support.authority import certificate_in
from tests.test_settings import SECRETS

KAFKA = {"PENSTOCK_BROKER": "kafka", "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": "a:9092, b:9092"}
SCRAM = {
    "PENSTOCK_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
    "PENSTOCK_KAFKA__USERNAME": "penstock",
    "PENSTOCK_KAFKA__PASSWORD": "hush",
}


def loaded(*parts: dict[str, str]) -> Any:
    environ = dict(SECRETS)
    for part in parts:
        environ |= part
    return load(environ)


def refusal(*parts: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(*parts)
    return str(caught.value)


async def test_none_is_the_default_kafka_and_rabbitmq_are_had_by_name() -> None:
    assert dead_letter_outlet(loaded()) is None
    assert dead_letter_endpoint(loaded()) is None
    kafka = loaded(KAFKA)
    assert isinstance(dead_letter_outlet(kafka), Kafka)
    assert dead_letter_endpoint(kafka) == "penstock.dead-letters.v1"
    url = {"PENSTOCK_BROKER": "rabbitmq", "PENSTOCK_RABBITMQ__URL": "amqp://hush:hush@there/"}
    rabbitmq = loaded(url, {"PENSTOCK_RABBITMQ__ROUTING_KEY": "dead"})
    assert isinstance(dead_letter_outlet(rabbitmq), RabbitMq)
    assert dead_letter_endpoint(rabbitmq) == "dead"


def test_a_broker_without_an_address_is_refused() -> None:
    assert "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS" in refusal({"PENSTOCK_BROKER": "kafka"})
    assert "PENSTOCK_RABBITMQ__URL" in refusal({"PENSTOCK_BROKER": "rabbitmq"})
    assert "kafka" in refusal({"PENSTOCK_BROKER": "kafak"})


@pytest.mark.parametrize(
    "address", ["here", "here:0", "here:99999", "kafka://here:9092", "a:1,,b:2"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    wrong = {"PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": address}
    assert "must be host:port" in refusal(wrong)


def test_a_login_is_whole_and_safe() -> None:
    assert loaded(KAFKA, SCRAM).kafka.sasl_mechanism == "SCRAM-SHA-512"
    lacking = {name: text for name, text in SCRAM.items() if "PASSWORD" not in name}
    assert "PENSTOCK_KAFKA__PASSWORD" in refusal(KAFKA, lacking)
    plain = {"PENSTOCK_KAFKA__SASL_MECHANISM": "PLAIN"}
    assert "shows the password" in refusal(KAFKA, SCRAM, plain)
    assert loaded(KAFKA, SCRAM, plain, {"PENSTOCK_KAFKA__TLS": "true"}).kafka.tls


KAFKA_TLS = {**KAFKA, "PENSTOCK_KAFKA__TLS": "true"}
RABBITMQ = {
    "PENSTOCK_BROKER": "rabbitmq",
    "PENSTOCK_RABBITMQ__URL": "amqps://there/",
}
SMTP = {"PENSTOCK_SMTP__HOST": "mail", "PENSTOCK_SMTP__FROM_ADDRESS": "a@example.com"}


@pytest.mark.parametrize(
    ("key", "around"), [("kafka", KAFKA_TLS), ("rabbitmq", RABBITMQ), ("smtp", SMTP)]
)
def test_certificates_are_read_at_the_start(
    key: str, around: dict[str, str], tmp_path: Path
) -> None:
    def with_file(path: Path) -> dict[str, str]:
        return {f"PENSTOCK_{key.upper()}__CA_FILE": str(path)}

    empty, none = tmp_path / "empty.pem", tmp_path / "none.pem"
    empty.write_text("no certificate")
    for path, why in (
        (none, "can't be read: No such file"),
        (empty, "has no certificate in PEM form"),
        (tmp_path, "ca_file"),
    ):
        told = refusal(around, with_file(path))
        (name,) = with_file(path)
        assert told.startswith(f"environment variable {name}: {key}.ca_file = {str(path)!r}: ")
        assert why in told
        assert "leave it out to trust the system's" in told
    assert loaded(around, with_file(certificate_in(tmp_path)))


def test_no_password_is_shown() -> None:
    url = {"PENSTOCK_RABBITMQ__URL": "amqps://hush:hush@there/"}
    shown = {one.key: one.value for one in describe(loaded(KAFKA, SCRAM, url))}
    assert "hush" not in str(shown)
    assert shown["rabbitmq.url"] == shown["kafka.password"] == "********"


def test_rules_of_alerts_are_told_apart_and_tell_one() -> None:
    def rules(text: str) -> dict[str, str]:
        return {"PENSTOCK_ALERTS__RULES": text}

    assert loaded(rules('[{"name": "a"}, {"name": "b"}]')).alerts.rules[1].name == "b"
    assert "two of the same name" in refusal(rules('[{"name": "a"}, {"name": "a"}]'))
    both = '[{"name": "a", "email": "a@example.com", "webhook": "https://example.com/"}]'
    assert "make two rules of it" in refusal(rules(both))
