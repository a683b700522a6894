"""The README's first minute and its tour of the API, run as they stand."""

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock import settings
from penstock.server import running
from tests.support.api import token
from tests.test_tidy import ROOT

README = (ROOT / "README.md").read_text()
TOUR_AT = README.index("## A tour of the API")
REFUSED = re.compile(r"# (\d{3}) ([a-z-]+)$", re.MULTILINE)  # what a comment promises


def blocks(text: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def development(replica_settings: settings.Settings) -> settings.Settings:
    modules = ("penstock.handlers.samples", "penstock.examples")
    handlers = replica_settings.handlers.model_copy(update={"modules": modules})
    return replica_settings.model_copy(update={"handlers": handlers})


async def test_every_command_of_the_first_minute_works(
    development: settings.Settings, workplace: Path
) -> None:
    found = [block for block in blocks(README[:TOUR_AT]) if "curl" in block]
    assert len(found) >= 4
    async with running(development) as replica:
        for block in found:
            answers = await shell(block, replica.url, workplace)
            assert len(answers) == len(re.findall("^curl", block, re.MULTILINE))
            for answer in answers:
                assert "status" not in answer, answer  # that would be a problem document
                if "wait=10" in block:
                    assert answer["state"] == "succeeded", answer


async def test_every_command_of_the_tour_answers_what_it_says(
    development: settings.Settings, workplace: Path
) -> None:
    """One shell for all of it, as a reader has."""
    tour = "".join(blocks(README[TOUR_AT:]))
    commands = [
        line for line in tour.splitlines() if line.startswith(("api /", 'api "')) or "api '" in line
    ]
    assert len(commands) >= 20
    async with running(development) as replica:
        answers = await shell(tour, replica.url, workplace)
    assert len(answers) == len(commands)
    for command, answer in zip(commands, answers, strict=True):
        refused = REFUSED.search(command)
        if refused is None:
            assert "status" not in answer, (command, answer)
        else:
            promised = (int(refused[1]), f"/problems/{refused[2]}")
            assert (answer["status"], answer["type"]) == promised, (command, answer)
    told = list(zip(commands, answers, strict=True))
    listed = next(answer for command, answer in told if "tag=tour" in command)
    assert len(listed["items"]) == 1
    ends = [answer["state"] for command, answer in told if "wait=10" in command]
    assert ends == ["succeeded", "cancelled", "dead", "succeeded", "succeeded", "dead", "dead"]
    for command, answer in told:
        if "/dead-letters/replay" in command:
            assert answer["matched"] >= 1, command
        if "/v1/workflows?" in command:
            assert answer["items"], command
    keyed = [answer.get("id") for command, answer in told if "4711}" in command]
    assert len(set(keyed)) == 1


async def shell(script: str, url: str, place: Path) -> list[dict[str, Any]]:
    """Runs a script as it stands; what each of its calls printed, decoded."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-eu", "-c", script),
        env={"URL": url, "TOKEN": token(), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        cwd=place,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, script
    return [orjson.loads(line) for line in out.splitlines()]
