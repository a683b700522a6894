"""The README's first minute, run as it stands."""

import asyncio
import re

import orjson
import pytest

from penstock import settings
from penstock.server import running
from tests.support.api import token
from tests.test_tidy import ROOT

BLOCKS = [
    block
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if "curl" in block
]


@pytest.fixture
def development(replica_settings: settings.Settings) -> settings.Settings:
    modules = ("penstock.handlers.samples", "penstock.examples")
    handlers = replica_settings.handlers.model_copy(update={"modules": modules})
    return replica_settings.model_copy(update={"handlers": handlers})


async def test_every_command_of_the_first_minute_works(development: settings.Settings) -> None:
    assert len(BLOCKS) >= 4
    async with running(development) as replica:
        for block in BLOCKS:
            for answer in await shell(block, replica.url):
                assert "status" not in answer, answer  # that would be a problem document
                if "wait=10" in block:
                    assert answer["state"] == "succeeded", answer


async def shell(block: str, url: str) -> list[dict[str, object]]:
    """Runs the commands; what each printed, decoded."""
    answers = []
    for command in re.split(r"\n(?=curl)", block.strip()):
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            command,
            env={"URL": url, "TOKEN": token(), "PATH": "/usr/local/bin:/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, command
        answers.append(orjson.loads(out))
    return answers
