"""Dead letters in Kafka: against brokers that are really there, and really fail."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from penstock.domain.effect import Delivery, Fate
from penstock.outlets.kafka import Kafka
from penstock.settings import Kafka as Settings
from tests.outlets.dead_letters import TOPIC, TRACE, dead_letter, dead_letters, fates
from tests.support.brokers import MockCluster, Tansu, header, records_in, value_of
from tests.support.waiting import eventually

TIMED_OUT, NOT_LEADER, TOO_LARGE, NOT_ENOUGH_REPLICAS, UNAUTHORISED = 7, 6, 10, 19, 29
OUT_OF_ORDER = 45


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as one:
        one.topic(TOPIC, 3)
        yield one


@pytest.fixture
def tansu(tmp_path: Path) -> Iterator[Tansu]:
    with Tansu(tmp_path) as one:
        yield one


def settings(address: str, **more: object) -> Settings:
    return Settings.model_validate({"bootstrap_servers": address, "topic": TOPIC, **more})


@pytest.fixture
async def outlet(cluster: MockCluster) -> AsyncIterator[Kafka]:
    one = Kafka(settings(cluster.address))
    yield one
    await one.close()


@pytest.fixture
async def plain(tansu: Tansu, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kafka]:
    """To Tansu, which knows no idempotent producers as aiokafka has them."""
    monkeypatch.setattr("penstock.outlets.kafka._REQUEST_MS", 2000)
    one = Kafka(settings(tansu.address, enable_idempotence=False))
    yield one
    await one.close()


async def test_a_dead_letter_is_a_cloud_event_in_binary_mode(plain: Kafka, tansu: Tansu) -> None:
    sent = dead_letter(7)
    assert await plain.deliver([sent]) == [Delivery(Fate.DELIVERED)]
    (record,) = await records_in(tansu.address, TOPIC, 1)
    id_ = "00000000-0000-0000-0000-000000000007"
    assert record.key == id_.encode()
    assert record.value == sent.data.encode()
    assert {name: value.decode() for name, value in record.headers} == {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": f"{id_}:3",
        "ce_type": "penstock.job.dead.v1",
        "ce_source": "/penstock",
        "ce_subject": id_,
        "ce_time": "2026-11-18T11:06:40.000Z",
        "traceparent": TRACE,
    }


async def test_a_large_dead_letter_takes_the_event_loop_little_time(outlet: Kafka) -> None:
    await outlet.deliver(dead_letters(1))
    large = dead_letter(2, str([random.random() for _ in range(22_000)]))  # hard to compress
    began = time.process_time()
    assert fates(await outlet.deliver([large])) == {Fate.DELIVERED}
    assert time.process_time() - began < 0.08  # it took 0.2 s while it was compressed


async def test_a_batch_of_500_arrives_whole(outlet: Kafka, cluster: MockCluster) -> None:
    assert fates(await outlet.deliver(dead_letters(outlet.at_once, "y" * 2000))) == {Fate.DELIVERED}
    records = await records_in(cluster.address, TOPIC, outlet.at_once)
    assert len({header(one, "ce_id") for one in records}) == len(records) == outlet.at_once


async def test_what_is_too_large_goes_as_a_reference(cluster: MockCluster) -> None:
    outlet = Kafka(settings(cluster.address, message_max_bytes=20_000))
    deliveries = await outlet.deliver(
        [dead_letter(1), dead_letter(2, "z" * 30_000), dead_letter(3)]
    )
    await outlet.close()
    assert fates(deliveries) == {Fate.DELIVERED}
    values = {header(one, "ce_id")[-3]: one for one in await records_in(cluster.address, TOPIC, 3)}
    whole, reference = value_of(values["1"]), value_of(values["2"])
    assert "reference" not in whole
    assert "payload" not in reference
    assert reference["attempt"] == 3
    assert reference["error"] == {"type": "Boom", "message": "x" * 1000}
    assert reference["reference"]["href"] == f"/v1/jobs/{reference['id']}"
    assert reference["reference"]["bytes"] > 30_000


async def test_a_broker_that_takes_less_than_we_were_told_blocks_nobody(
    outlet: Kafka, cluster: MockCluster
) -> None:
    await outlet.deliver([dead_letter(1)])
    cluster.fail_produce(TOO_LARGE)
    large = dead_letter(2, "z" * 30_000)
    assert fates(await outlet.deliver([large])) == {Fate.LATER}
    assert fates(await outlet.deliver([large, dead_letter(3)])) == {Fate.DELIVERED}
    records = {header(one, "ce_id")[-3]: one for one in await records_in(cluster.address, TOPIC, 3)}
    assert "reference" in value_of(records["2"])
    assert "reference" not in value_of(records["3"])
    assert outlet.why is None


async def test_without_idempotence_the_reference_follows_at_once(cluster: MockCluster) -> None:
    outlet = Kafka(settings(cluster.address, enable_idempotence=False))
    await outlet.deliver([dead_letter(1)])
    cluster.fail_produce(TOO_LARGE)
    assert fates(await outlet.deliver([dead_letter(2, "z" * 30_000)])) == {Fate.DELIVERED}
    await outlet.close()
    records = await records_in(cluster.address, TOPIC, 2)
    assert sum("reference" in value_of(one) for one in records) == 1


async def test_numbers_out_of_order_are_no_outage(outlet: Kafka, cluster: MockCluster) -> None:
    """What Apache Kafka answers to what follows a record that it refused."""
    await outlet.deliver([dead_letter(1)])
    cluster.fail_produce(TOO_LARGE, OUT_OF_ORDER)
    batch = [dead_letter(number, "z" * 30_000) for number in range(40)]
    assert Fate.LATER in fates(await outlet.deliver(batch))
    assert outlet.why is None
    assert fates(await outlet.deliver(batch)) == {Fate.DELIVERED}


async def test_errors_that_pass_are_waited_for(outlet: Kafka, cluster: MockCluster) -> None:
    await outlet.deliver([dead_letter(1)])
    cluster.fail_produce(NOT_LEADER, TIMED_OUT, NOT_ENOUGH_REPLICAS)
    assert fates(await outlet.deliver([dead_letter(2)])) == {Fate.DELIVERED}
    records = await records_in(cluster.address, TOPIC, 2)
    assert len(records) == 2


async def test_errors_that_last_hold_nobody_up_and_pass_in_the_end(
    outlet: Kafka, cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outlet.deliver([dead_letter(1)])
    monkeypatch.setattr("penstock.outlets.kafka._SEND_MAX_S", 1.0)
    cluster.fail_produce(*[NOT_ENOUGH_REPLICAS] * 20)
    began = time.monotonic()
    (refused,) = await outlet.deliver([dead_letter(2)])
    assert refused.fate is Fate.LATER
    assert time.monotonic() - began < 5
    monkeypatch.undo()
    await eventually(lambda: _is_back(outlet), "another producer", 15)
    assert fates(await outlet.deliver([dead_letter(2)])) == {Fate.DELIVERED}


async def test_a_topic_that_we_may_not_write_to_is_tried_again(
    outlet: Kafka, cluster: MockCluster
) -> None:
    await outlet.deliver([dead_letter(1)])
    cluster.fail_produce(UNAUTHORISED)
    (refused,) = await outlet.deliver([dead_letter(2)])
    assert refused.fate is Fate.LATER
    assert "TopicAuthorizationFailedError" in str(refused.error)
    assert outlet.why is None  # the broker is there
    assert fates(await outlet.deliver([dead_letter(2)])) == {Fate.DELIVERED}


async def test_nobody_waits_for_a_broker_that_is_known_to_be_away(tmp_path: Path) -> None:
    tansu = Tansu(tmp_path)
    outlet = Kafka(settings(tansu.address, enable_idempotence=False))
    assert outlet.why is None
    assert fates(await outlet.deliver(dead_letters(3))) == {Fate.LATER}
    assert "KafkaConnectionError" in str(outlet.why)
    began = time.monotonic()
    assert fates(await outlet.deliver(dead_letters(500))) == {Fate.LATER}
    assert time.monotonic() - began < 3  # the first connection is waited for 5 s
    with tansu:
        await eventually(lambda: _is_back(outlet), "the outlet comes back by itself", 15)
        assert fates(await outlet.deliver(dead_letters(3))) == {Fate.DELIVERED}
        await outlet.close()


async def test_a_broker_that_is_killed_is_missed_and_found_again(
    plain: Kafka, tansu: Tansu
) -> None:
    assert fates(await plain.deliver(dead_letters(3))) == {Fate.DELIVERED}
    tansu.kill()
    assert fates(await plain.deliver(dead_letters(3))) == {Fate.LATER}
    assert plain.why is not None
    tansu.start()
    await eventually(lambda: _is_back(plain), "the outlet comes back by itself", 15)
    assert fates(await plain.deliver(dead_letters(3))) == {Fate.DELIVERED}


async def test_a_broker_that_goes_away_between_two_letters_is_told_of(
    plain: Kafka, tansu: Tansu
) -> None:
    await plain.deliver(dead_letters(1))
    tansu.kill()
    await eventually(lambda: _is_away(plain), "somebody notices", 20)


async def test_a_broker_that_hangs_is_given_up_in_time_and_holds_nothing(
    cluster: MockCluster, outlet: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.outlets.kafka._SEND_MAX_S", 1.0)
    await outlet.deliver(dead_letters(1))
    cluster.down()
    began = time.monotonic()
    assert fates(await outlet.deliver(dead_letters(500, "y" * 1000))) == {Fate.LATER}
    assert time.monotonic() - began < 5
    monkeypatch.undo()
    cluster.up()
    await eventually(lambda: _is_back(outlet), "the outlet comes back by itself", 30)
    assert fates(await outlet.deliver(dead_letters(500))) == {Fate.DELIVERED}


async def test_a_doctor_is_let_in_or_told_why_not(outlet: Kafka) -> None:
    assert await outlet.fault() is None
    nobody = Kafka(settings("127.0.0.1:9"))
    assert "'127.0.0.1', 9" in str(await nobody.fault())


async def test_closing_does_not_wait_for_a_broker(plain: Kafka, tansu: Tansu) -> None:
    await plain.deliver(dead_letters(1))
    tansu.pause()
    sending = asyncio.create_task(plain.deliver(dead_letters(50)))
    await asyncio.sleep(0.1)
    sending.cancel()
    began = time.monotonic()
    await plain.close()
    assert time.monotonic() - began < 8
    tansu.resume()


async def _is_back(outlet: Kafka) -> bool:
    return outlet.why is None


async def _is_away(outlet: Kafka) -> bool:
    return outlet.why is not None
