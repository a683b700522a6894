"""The document and the page that shows it. Nothing here needs a token or another host.

In: the document as the porter had it written; files of `ui/`. Out: answers that a browser may
keep, if it asks each time whether they still hold. The page is Swagger UI under a policy that
lets it load from here only, and run no script that stands in the page itself.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from aiohttp import web

from penstock.api import views
from penstock.api.ask import Ask
from penstock.api.problems import PROBLEMS, not_found

_UI = Path(__file__).resolve().parent.parent / "ui"

ASSETS = {
    "swagger-ui-bundle.js": ("vendor/swagger-ui-bundle-5.35.0.js", "text/javascript"),
    "swagger-ui.css": ("vendor/swagger-ui-5.35.0.css", "text/css"),
    "init.js": ("docs/init.js", "text/javascript"),
}
# Swagger UI sets styles by script (CSSOM), which no policy forbids; its icons are data: URLs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Something to send, with its type and its name as a version."""

    body: bytes
    media: str
    etag: str


async def openapi(ask: Ask) -> web.Response:
    """The OpenAPI document of what this replica serves."""
    return _send(ask, _sheet(ask.door.document, "application/json"))


async def page(ask: Ask) -> web.Response:
    """Swagger UI, opened at that document."""
    response = _send(ask, _file("docs/index.html", "text/html"))
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


async def asset(ask: Ask) -> web.Response:
    """One of the page's files."""
    if ask.key not in ASSETS:
        raise not_found()
    return _send(ask, _file(*ASSETS[ask.key]))


async def problem(ask: Ask) -> web.Response:
    """What a type of problem means: the address that its `type` is."""
    row = PROBLEMS.get(ask.key)
    if row is None:
        raise not_found()
    return views.answer(
        {
            "type": f"/problems/{ask.key}",
            "title": row.title,
            "status": row.status.value,
            "advice": row.advice,
        }
    )


def _send(ask: Ask, sheet: _Sheet) -> web.Response:
    """The sheet, or 304 to who has it already (RFC 9110, 13.1.2)."""
    headers = {"ETag": sheet.etag, "Cache-Control": "no-cache"}
    known = ask.request.headers.get("If-None-Match", "")
    if known == "*" or sheet.etag in known:
        return web.Response(status=304, headers=headers)
    return web.Response(body=sheet.body, headers={"Content-Type": sheet.media, **headers})


@lru_cache(maxsize=8)
def _file(path: str, media: str) -> _Sheet:
    return _sheet((_UI / path).read_bytes(), f"{media}; charset=utf-8")


@lru_cache(maxsize=4)
def _sheet(body: bytes, media: str) -> _Sheet:
    return _Sheet(body, media, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
