"""The `Idempotency-Key` header: a request that is sent again is answered as the first time.

In: the header and the body. Out: a `RequestKey`, scoped to caller, method and path. Two bodies are
the same if they hold the same JSON, whatever the order of the names in it; but a job over 64 KiB
has to be the same byte by byte, for to sort it takes long (decision 0013).
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import orjson

from penstock.api.ask import Ask
from penstock.api.bodies import LARGE_BYTES, PACED_BYTES, decode
from penstock.api.pace import Pace
from penstock.api.problems import Problem
from penstock.domain.submission import RequestKey

_FORM = re.compile(r"[\x20-\x7e]{1,255}")
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


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
    if ask.body.raw is not None:
        parts = [memoryview(ask.body.raw)]
    if ask.body.size <= PACED_BYTES:
        digest = hashlib.sha256(b"".join(map(_canonical, parts))).digest()
    else:
        digest = await _digest(parts, ask.door.pace)
    return RequestKey(id_, digest)


async def _digest(parts: Iterable[Any], pace: Pace) -> bytes:
    """SHA-256 of the parts."""
    hashed = hashlib.sha256()
    async with pace:
        for part in parts:
            hashed.update(_canonical(part))
            if pace.is_over:
                await pace.breathe()
    return hashed.digest()


def _canonical(part: Any) -> bytes:
    """A part as JSON with sorted names; of a body that was split it is bytes, and as it was sent
    if it is large."""
    if type(part) is memoryview:
        if len(part) > LARGE_BYTES:
            return bytes(part) + b"\n"
        part = decode(bytes(part))[0]
    return orjson.dumps(part, option=_SORTED)
