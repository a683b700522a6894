"""The shortest way: a submission is refused, and health told, before HTTP is parsed.

In: the bytes that came on a connection that was at rest. Out: how the request in them is framed,
where that is plain beyond doubt, and the bytes of an answer. Whatever is unusual in the least (a
transfer coding, two lengths, `Expect`, a lone line feed) takes the ordinary way through aiohttp's
parser. An ordinary refusal costs a fifth of an accepted submission, this one a twentieth; decision
0015 tells why that decides how much is accepted under overload.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from penstock.api import health, problems
from penstock.api.door import Door
from penstock.api.gate import Shut, Traffic
from penstock.api.porter import seal
from penstock.api.problems import RETRY_AFTER_MAX_S, Overloaded

SUBMISSIONS: Mapping[bytes, Traffic] = {
    b"POST /v1/jobs HTTP/1.1\r\n": Traffic.SUBMISSION,
    b"POST /v1/jobs/batch HTTP/1.1\r\n": Traffic.BATCH,
    b"POST /v1/workflows HTTP/1.1\r\n": Traffic.BATCH,
}
HEALTH: Mapping[bytes, Callable[[Door], web.Response]] = {
    b"GET /livez HTTP/1.1\r\n": health.live,
    b"GET /readyz HTTP/1.1\r\n": health.ready,
}
LACKS_MAX = 1024 * 1024  # of a body that is passed over; larger ones are not waited for
_HEAD_MAX = 8 * 1024
# What bears on framing, or on the answer; a line that goes on with the one before.
_TELLING = re.compile(
    rb"\n(?i:(host|content-length|connection|x-request-id|transfer-encoding|expect|upgrade)"
    rb"[ \t]*:[ \t]*([^\r\n]*)|[ \t])"
)
_LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}:[\t\x20-\x7e\x80-\xff]*\r\n){1,100}")
_SENT_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_MARK = b"\0"  # where the request's id belongs


@dataclass(frozen=True, slots=True)
class Framed:
    """A request that begins with the first byte. `lacks`: bytes of its body that are to come;
    `id`: what it was sent as X-Request-Id."""

    lacks: int
    id: bytes | None


def framed(data: bytes) -> Framed | None:
    """None where there is any doubt about it, also where more than one request is begun."""
    end = data.find(b"\r\n\r\n", 0, _HEAD_MAX)
    if end < 0:
        return None
    length, id_, has_host = None, None, False
    for name, value in _TELLING.findall(data, 0, end):
        match name.lower():
            case b"content-length" if length is None and len(value) < 10 and value.isdigit():
                length = int(value)
            case b"host" if value and not has_host:
                has_host = True
            case b"x-request-id" if id_ is None:
                id_ = value
            case b"connection" if value.lower() == b"keep-alive":
                pass
            case _:
                return None
    lacks = (length or 0) - (len(data) - end - 4)
    return Framed(lacks, id_) if has_host and lacks >= 0 else None


def has_plain_lines(data: bytes) -> bool:
    """Whether each line of a framed head is as RFC 9112 has it: else others may read it in
    another way, and the parser says no."""
    end = data.find(b"\r\n\r\n") + 2
    return _LINES.fullmatch(data, data.find(b"\n") + 1, end) is not None


class Answers:
    """Refusals are made once for each reason: what varies is the request's id and when to try
    again. `prefix`: of the ids of requests that were sent without one."""

    def __init__(self, door: Door, prefix: str) -> None:
        self._door = door
        self._prefix = prefix
        self._numbers = itertools.count()
        self._made: dict[Shut, list[tuple[bytes, bytes]]] = {}

    def refusal(self, why: Shut, sent_id: bytes | None) -> bytes:
        """A whole answer, head and body."""
        number = next(self._numbers)
        made = self._made.get(why)
        if made is None:
            made = self._made[why] = _made(why)
        before, after = made[number % len(made)]
        if sent_id is not None and _SENT_ID.fullmatch(sent_id):
            return before + sent_id + after
        return b"%b%b%x%b" % (before, self._prefix.encode(), number, after)

    def health(self, data: bytes, sent_id: bytes | None) -> tuple[int, bytes]:
        """The status, and the whole answer."""
        response = HEALTH[data[: data.find(b"\n") + 1]](self._door)
        if sent_id is not None and _SENT_ID.fullmatch(sent_id):
            seal(response, sent_id.decode())
        else:
            seal(response, f"{self._prefix}{next(self._numbers):x}")
        return response.status, written(response)


def _made(why: Shut) -> list[tuple[bytes, bytes]]:
    return [_cut(written(_refusal(why, after_s))) for after_s in range(1, RETRY_AFTER_MAX_S + 1)]


def _refusal(why: Shut, after_s: int) -> web.Response:
    response = problems.answer(Overloaded(why.detail, after_s))
    seal(response, _MARK.decode())
    return response


def _cut(answer: bytes) -> tuple[bytes, bytes]:
    before, _, after = answer.partition(_MARK)
    return before, after


def written(answer: web.Response) -> bytes:
    """An answer as it goes over the wire."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    answer.headers["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    return f"HTTP/1.1 {answer.status} {answer.reason}\r\n{lines}\r\n".encode() + body
