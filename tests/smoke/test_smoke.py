"""The smoke script's own logic, on a stack of real servers without containers."""

import socket
from pathlib import Path

import pytest

from tests.smoke.drive import Stack, drive
from tests.smoke.mailpit import mailpit
from tests.support.api import token
from tests.support.brokers import Tansu
from tests.support.replica import ReplicaProcess

FRONT = {"PENSTOCK_ROLES": '["api", "scheduler", "relay"]'}
SOON_LOST = {"PENSTOCK_WORKER__TTL_S": "3", "PENSTOCK_WORKER__BEAT_S": "0.5"}


async def test_a_stack_of_two_replicas_does_all_that_the_script_asks(
    dsn: str, redis_url: str, workplace: Path
) -> None:
    """One replica answers, the other runs the jobs, is killed and comes back, as containers do."""
    with Tansu(workplace) as broker:
        async with mailpit() as mail:
            environ = {
                **SOON_LOST,
                "PENSTOCK_BROKER": "kafka",
                "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": broker.address,
                "PENSTOCK_KAFKA__ENABLE_IDEMPOTENCE": "false",
                "PENSTOCK_SMTP__HOST": "127.0.0.1",
                "PENSTOCK_SMTP__PORT": str(mail.smtp_port),
                "PENSTOCK_SMTP__TLS": "none",
                "PENSTOCK_SMTP__FROM_ADDRESS": "penstock@example.com",
            }
            front = ReplicaProcess(dsn, redis_url, workplace, {**environ, **FRONT})
            back = ReplicaProcess(dsn, redis_url, workplace, environ)
            said: list[str] = []

            async def kill(host: str) -> None:
                assert host == socket.gethostname()
                back.kill()
                back.start()

            try:
                front.start()
                back.start()
                stack = Stack(front.url, token(), broker.address, mail.url, kill)
                await drive(stack, said.append)
            finally:
                front.stop()
                back.stop()
    assert len(said) == 7, said
    assert said[-1].endswith("40 of them again"), said


async def test_a_stack_that_fails_is_said_to(dsn: str, redis_url: str, workplace: Path) -> None:
    """Nobody runs jobs: the script must not be content."""
    front = ReplicaProcess(dsn, redis_url, workplace, FRONT)
    try:
        front.start()
        with pytest.raises(AssertionError, match=r"'state': '(ready|scheduled)'"):
            await drive(Stack(front.url, token(), patience_s=1), lambda text: None)
    finally:
        front.stop()
