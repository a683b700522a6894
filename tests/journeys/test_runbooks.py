"""The calls that the runbooks tell an operator to make, run as they stand."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.support.api import Api, token
from tests.test_tidy import ROOT

RUNBOOKS = (ROOT / "app/docs/runbooks.md").read_text()
(API,) = re.findall(r"^`api` below is the README's: `(.*)`\.$", RUNBOOKS, re.MULTILINE)
assert f"{API}\n" in (ROOT / "README.md").read_text(), "say it as the README does"
CALLS = re.findall(r"`(api '?/v1/[^`]*)`", RUNBOOKS)
NOWHERE = {"<delivery>": "0" * 32, "<endpoint>": "0" * 16}  # there are none: not found


@pytest.mark.filterwarnings("error")
async def test_every_call_of_the_runbooks_is_right(api: Api, tmp_path: Path) -> None:
    dead = await api.submit("fail", {"retryable": False}, queue="mail")
    await api.ended(dead)
    assert len(CALLS) >= 20
    for call in CALLS:
        said = call.replace("<job>", dead).replace("<name>", "mail").replace("<channel>", "webhook")
        for name, value in NOWHERE.items():
            said = said.replace(name, value)
        assert not re.search(r"<\w+>|…", said), call
        process = await asyncio.create_subprocess_exec(
            *("sh", "-eu", "-c", f"{API}\n{said} -o answer -w '%{{http_code}}'"),
            env={"URL": api.url, "TOKEN": token(), "PATH": "/usr/local/bin:/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        status = (await process.communicate())[0].decode()
        answer = (tmp_path / "answer").read_text()
        if any(name in call for name in NOWHERE):
            assert (status, "/problems/not-found" in answer) == ("404", True), (call, answer)
        elif "cancel" in call or "discard" in call or "-X DELETE" in call or "replay" in call:
            assert status in ("200", "202", "409"), (call, answer)  # 409: by another one before
        else:
            assert status == "200", (call, answer)
