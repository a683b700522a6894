"""The README's first minute and tour of the API, and the calls of the pages, run as they stand."""

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


# How the jobs and workflows end that a page waits for, page by page; each is read by itself, after
# the two functions of the README's tour.
ENDS = {
    "README.md": ["succeeded", "dead", "dead", "succeeded"],
    "app/docs/api.md": ["cancelled", "dead", "dead"],
    "app/docs/notifications.md": [],
    "app/docs/security.md": [],
    "app/docs/workflows.md": ["succeeded"],
}


@pytest.mark.parametrize("page", ENDS)
async def test_every_command_of_a_page_answers_what_it_says(
    page: str, development: settings.Settings, workplace: Path
) -> None:
    """One shell for all of a page, as a reader has."""
    functions, *tour = blocks(README[TOUR_AT:])
    script = "".join(tour if page == "README.md" else blocks((ROOT / page).read_text()))
    commands = [line for line in script.splitlines() if re.search(r"\bapi '?/", line)]
    commands = [line for line in commands if not line.endswith("| id)")]  # those print nothing
    assert commands
    async with running(development) as replica:
        answers = await shell(functions + script, replica.url, workplace)
    assert len(answers) == len(commands)
    told = list(zip(commands, answers, strict=True))
    for command, answer in told:
        refused = REFUSED.search(command)
        if refused is None:
            assert "status" not in answer, (command, answer)
        else:
            promised = (int(refused[1]), f"/problems/{refused[2]}")
            assert (answer["status"], answer["type"]) == promised, (command, answer)
        if "/dead-letters/replay" in command:
            assert answer["matched"] >= 1, command
        if "/v1/workflows?" in command or "/v1/dead-letters?" in command:
            assert answer["items"], command
        if "tag=tour" in command:
            assert len(answer["items"]) == 1, command
    assert [answer["state"] for command, answer in told if "wait=10" in command] == ENDS[page]
    keyed = [answer["id"] for command, answer in told if "4711}" in command]
    assert len(set(keyed)) == len(keyed[:1])


def test_every_page_with_commands_is_run() -> None:
    pages = [ROOT / "README.md", *(ROOT / "app" / "docs").glob("*.md")]
    found = {str(page.relative_to(ROOT)) for page in pages if blocks(page.read_text())}
    assert found == {*ENDS, "app/docs/operations.md"}  # the last by tests/ship/test_backup.py


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
