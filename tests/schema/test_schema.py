"""A short run of schemathesis: the document and the server agree."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.schema.runner import examined
from tests.support.replica import ReplicaProcess

MAX_EXAMPLES = 15


@pytest.mark.timeout(400)  # it tries limits of lists too, and one of 10,000 jobs takes it a while
async def test_the_server_does_what_its_document_says(
    dsn: str, redis_url: str, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**31)
    replica = ReplicaProcess(dsn, redis_url, tmp_path)
    replica.start()
    try:
        await replica.ready()
        found = await asyncio.to_thread(
            examined, replica.url, tmp_path, max_examples=MAX_EXAMPLES, seed=seed
        )
        again = f"python -m tests.schema --max-examples {MAX_EXAMPLES} --seed {seed}"
        assert found.passed, f"{again}\n{found.text}"
        assert found.cases > 500
        assert "request_failed" not in replica.log_file.read_text()
    finally:
        replica.stop()
