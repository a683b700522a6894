"""Dead letters in Apache Kafka itself, whose idempotence no other broker has as it does."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from penstock.domain.effect import Fate, Message
from penstock.outlets.kafka import Kafka
from penstock.settings import Kafka as Settings
from tests.outlets.dead_letters import TOPIC, dead_letter, dead_letters, fates
from tests.outlets.test_mail import certificate
from tests.support.apache_kafka import JARS, PASSWORD, USER, ApacheKafka
from tests.support.brokers import header, records_in, value_of
from tests.support.waiting import eventually

__all__ = ["certificate"]  # the fixture

pytestmark = [
    pytest.mark.skipif(JARS is None, reason="TEST_KAFKA names no Apache Kafka: see support"),
    pytest.mark.timeout(240),
]


@pytest.fixture
def broker(tmp_path: Path, certificate: Path) -> Iterator[ApacheKafka]:
    with ApacheKafka(tmp_path, certificate) as one:
        yield one


@pytest.fixture
async def outlet(broker: ApacheKafka) -> AsyncIterator[Kafka]:
    one = Kafka(Settings.model_validate({"bootstrap_servers": broker.address, "topic": TOPIC}))
    yield one
    await one.close()


async def rounds(outlet: Kafka, letters: Sequence[Message]) -> int:
    """How often the relay would have to come until all are delivered."""
    for number in range(1, 20):
        came = await outlet.deliver(letters)
        pairs = zip(letters, came, strict=True)
        letters = [one for one, delivery in pairs if delivery.fate is not Fate.DELIVERED]
        if not letters:
            return number
        assert not outlet.is_away(), outlet.why
    raise AssertionError(f"{len(letters)} are never delivered")


async def test_500_arrive_once(outlet: Kafka, broker: ApacheKafka) -> None:
    assert await rounds(outlet, dead_letters(500, "y" * 2000)) == 1
    records = await records_in(broker.address, TOPIC, 500)
    assert len({header(one, "ce_id") for one in records}) == len(records) == 500


async def test_what_it_finds_too_large_blocks_nobody(outlet: Kafka, broker: ApacheKafka) -> None:
    large = os.urandom(100_000).hex()
    letters = [dead_letter(n, large if n % 50 == 0 else "") for n in range(500)]
    assert await rounds(outlet, letters) <= 3
    records = await records_in(broker.address, TOPIC, 500)
    told = {header(one, "ce_id"): "reference" in value_of(one) for one in records}
    assert len(told) == 500
    assert sum(told.values()) == 10


async def test_what_it_has_outlives_its_death(outlet: Kafka, broker: ApacheKafka) -> None:
    await outlet.deliver(dead_letters(100))
    broker.kill()
    await eventually(lambda: _is_away(outlet, away=True), "it is missed", 40)
    assert fates(await outlet.deliver(dead_letters(200))) == {Fate.LATER}
    broker.start()
    await eventually(lambda: _is_away(outlet, away=False), "it is found again", 60)
    assert await rounds(outlet, dead_letters(200)) <= 2
    records = await records_in(broker.address, TOPIC, 300)
    assert len({header(one, "ce_id") for one in records}) == 200


async def test_tls_and_a_login_by_scram(broker: ApacheKafka, certificate: Path) -> None:
    safe = {
        "bootstrap_servers": broker.safe_address,
        "topic": TOPIC,
        "tls": True,
        "ca_file": str(certificate),
        "sasl_mechanism": "SCRAM-SHA-512",
        "username": USER,
        "password": PASSWORD,
    }
    for wrong in ({"password": "hush"}, {"ca_file": None}):
        refused = Kafka(Settings.model_validate({**safe, **wrong}))
        assert fates(await refused.deliver(dead_letters(3))) == {Fate.LATER}
        assert refused.why is not None
        assert "hush" not in refused.why
        await refused.close()
    outlet = Kafka(Settings.model_validate(safe))
    assert fates(await outlet.deliver(dead_letters(3))) == {Fate.DELIVERED}
    await outlet.close()


async def _is_away(outlet: Kafka, *, away: bool) -> bool:
    return outlet.is_away() is away
