"""Apache Kafka itself, one node, where `TEST_KAFKA` names a directory with its jars (Java 17):

mvn -f tests/support/kafka.pom.xml dependency:copy-dependencies -DincludeScope=runtime \
  -DoutputDirectory="$TEST_KAFKA"
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from penstock.dev.process import tethered
from tests.support.ports import free_port

JARS = os.environ.get("TEST_KAFKA")
USER, PASSWORD = "penstock", "open-sesame"
_START_S = 60.0
_JAVA = ("java", "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{safe},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{safe}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={certificate}
log.dirs={directory}/data
num.partitions=3
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes=100000
"""


class ApacheKafka:
    """`with ApacheKafka(directory, certificate) as broker:`; `kill` and `start` again, with what
    it kept. `certificate`: a PEM with its key. At `safe_address` it wants TLS and a login."""

    def __init__(self, directory: Path, certificate: Path) -> None:
        self._directory = directory
        self._certificate = certificate
        self._safe = free_port()
        self.safe_address = f"127.0.0.1:{self._safe}"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._settings = directory / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        text = _SETTINGS.format(
            port=self.port,
            safe=self._safe,
            controller=free_port(),
            directory=self._directory.absolute(),
            certificate=self._certificate,
        )
        self._settings.write_text(text)
        storage = self._java("kafka.tools.StorageTool")
        made = subprocess.run([*storage, "random-uuid"], capture_output=True, text=True, check=True)
        id_ = made.stdout.split()[-1]
        user = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        formats = [*storage, "format", "-t", id_, "-c", str(self._settings), "--add-scram", user]
        subprocess.run(formats, capture_output=True, check=True)
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def start(self) -> None:
        log = self._directory / "kafka.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                tethered(
                    ["/usr/bin/env", *self._java("kafka.Kafka"), str(self._settings)],
                    signal.SIGKILL,
                ),
                stdout=out,
                stderr=out,
            )
        give_up_at = time.monotonic() + _START_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise AssertionError(f"Kafka didn't start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def _java(self, program: str) -> list[str]:
        return [*_JAVA, "-cp", f"{JARS}/*", program]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
