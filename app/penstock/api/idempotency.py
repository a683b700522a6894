"""The `Idempotency-Key` header: a request that is sent again is answered as the first time.

In: the header and the body. Out: a `RequestKey`, scoped to caller, method and path. Two bodies are
the same if they hold the same JSON, whatever the order of the names in it.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterable
from typing import Any

import orjson

from penstock.api.ask import Ask
from penstock.api.problems import Problem
from penstock.domain.submission import RequestKey

_FORM = re.compile(r"[\x20-\x7e]{1,255}")
_SLICE_BYTES = 256 * 1024  # of JSON made before others get their turn


async def request_key(ask: Ask, parts: Iterable[Any]) -> RequestKey | None:
    """The key of this request, or None where it has none. `parts` are what its body says.

    Raises 400 for a header that is no key.
    """
    sent = ask.request.headers.getall("Idempotency-Key", [])
    if not sent:
        return None
    if len(sent) > 1 or not _FORM.fullmatch(sent[0]):
        raise Problem(
            "bad-idempotency-key", "send one Idempotency-Key of 1 to 255 printable ASCII characters"
        )
    call = (ask.caller.sub, ask.request.method, ask.request.path, sent[0])
    id_ = hashlib.sha256(orjson.dumps(call)).digest()[:16]
    return RequestKey(id_, await _digest(parts))


async def _digest(parts: Iterable[Any]) -> bytes:
    """SHA-256 of the parts as JSON with sorted names."""
    hashed, since = hashlib.sha256(), 0
    for part in parts:
        text = orjson.dumps(part, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
        hashed.update(text)
        since += len(text)
        if since > _SLICE_BYTES:
            await asyncio.sleep(0)
            since = 0
    return hashed.digest()
