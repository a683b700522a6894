"""Who is told, in journeys that tell somebody."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.egress.receiver import Receiver, receiver, saying
from tests.outlets.mailbox import Mailbox, mailbox


@pytest.fixture
async def box() -> AsyncIterator[Mailbox]:
    async with mailbox() as one:
        yield one


@pytest.fixture
def smtp(box: Mailbox) -> dict[str, Any]:
    """The settings by which mail gets there."""
    return {"host": "127.0.0.1", "port": box.port, "tls": "none", "from_address": "a@example.org"}


@pytest.fixture
async def there() -> AsyncIterator[Receiver]:
    async with receiver(saying()) as one:
        yield one
