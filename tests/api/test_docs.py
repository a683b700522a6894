"""The page for the browser and its files."""

import hashlib
import re

import pytest
from hatchling.builders.wheel import WheelBuilder

from penstock.api import docs
from tests.api.conftest import Served
from tests.api.wire import call
from tests.test_tidy import PACKAGE, ROOT

VENDOR = PACKAGE / "ui" / "vendor"
VENDOR_MD = (VENDOR / "VENDOR.md").read_text()


def test_files_of_others_are_as_they_were_published() -> None:
    rows = re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", VENDOR_MD, re.MULTILINE)
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != "VENDOR.md"
    }
    assert found == dict(rows), "VENDOR.md has a row for each file, with its hash"


def test_files_of_others_carry_their_licences() -> None:
    for words in ("Apache License", "SmartBear", "Jed Watson", "TERMS AND CONDITIONS FOR USE"):
        assert words in VENDOR_MD


def test_the_wheel_has_the_page_and_its_files() -> None:
    shipped = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    files = {"docs/index.html", "vendor/VENDOR.md", *(path for path, _ in docs.ASSETS.values())}
    assert {f"penstock/ui/{path}" for path in files} <= shipped


async def test_the_page_loads_only_what_we_serve(served: Served) -> None:
    async with served() as port:
        page = (await call(port, "GET", "/docs")).body.decode()
        named = re.findall(r'(?:src|href)="([^"]+)"', page)
        ours = [url for url in named if url != "data:,"]
        assert sorted(ours) == sorted(f"/docs/{name}" for name in docs.ASSETS)
        for url in ours:
            assert (await call(port, "GET", url)).status == 200, url
        script = (await call(port, "GET", "/docs/init.js")).body.decode()
    assert "<script>" not in page
    assert "style=" not in page
    assert "validatorUrl: null" in script
    assert "://" not in page + script


async def test_the_policy_lets_the_page_load_from_here_only(served: Served) -> None:
    async with served() as port:
        answer = await call(port, "GET", "/docs")
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    for name in ("script-src", "style-src", "connect-src"):
        assert policy[name] == "'self'"
    assert not re.search(r"unsafe|http|\*", answer.headers["content-security-policy"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
        ("init.js", "text/javascript"),
    ],
)
async def test_files_are_kept_by_browsers_while_they_hold(
    served: Served, name: str, media: str
) -> None:
    async with served() as port:
        first = await call(port, "GET", f"/docs/{name}")
        etag = first.headers["etag"]
        same = await call(port, "GET", f"/docs/{name}", if_none_match=f'W/"x", {etag}')
        other = await call(port, "GET", f"/docs/{name}", if_none_match='"x"')
    assert first.headers["content-type"] == f"{media}; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
    assert (other.status, other.body) == (200, first.body)


@pytest.mark.parametrize("name", ["index.html", "..%2fdocs.py", "VENDOR.md", "", "init.js%00"])
async def test_nothing_else_of_the_disk_is_shown(served: Served, name: str) -> None:
    async with served() as port:
        assert (await call(port, "GET", f"/docs/{name}")).status in (400, 404)


async def test_other_answers_are_kept_by_nobody(served: Served) -> None:
    async with served() as port:
        assert (await call(port, "GET", "/livez")).headers["cache-control"] == "no-store"
