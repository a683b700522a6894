"""The shortest way to say no: a submission is refused before HTTP is parsed.

In: the bytes that came on a connection that was at rest. Out: how the request in them is framed,
where that is plain beyond doubt, and the bytes of an answer. Whatever is unusual in the least (a
transfer coding, two lengths, `Expect`, a lone line feed) takes the ordinary way through aiohttp's
parser. An ordinary refusal costs a fifth of an accepted submission, this one a twentieth; decision
0015 tells why that decides how much is accepted under overload.
"""

import itertools
import re
from dataclasses import dataclass

from aiohttp import web

from penstock.api import problems
from penstock.api.gate import Shut
from penstock.api.porter import seal
from penstock.api.problems import RETRY_AFTER_MAX_S, Overloaded

SUBMISSIONS = (b"POST /v1/jobs HTTP/1.1\r\n", b"POST /v1/jobs/batch HTTP/1.1\r\n")
_HEAD_MAX = 8 * 1024
LACKS_MAX = 1024 * 1024  # of a body that is passed over; larger ones are not waited for
_LENGTH = b"\r\ncontent-length"
_KEPT = b"\r\nconnection: keep-alive\r\n"
_ID = b"\r\nx-request-id:"
_SENT_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_UNUSUAL = (b"\r\ntransfer-encoding", b"\r\nexpect", b"\r\nupgrade", b"\r\n ", b"\r\n\t", b"\0")
_MARK = b"\0"  # where the request's id belongs


@dataclass(frozen=True, slots=True)
class Framed:
    """A request that begins with the first byte. `lacks`: bytes of its body that are to come;
    `head`: in lower case."""

    head: bytes
    lacks: int


def framed(data: bytes) -> Framed | None:
    """None where there is any doubt about it, also where more than one request is begun."""
    end = data.find(b"\r\n\r\n", 0, _HEAD_MAX)
    if end < 0:
        return None
    head = data[: end + 2].lower()
    at, has = head.find(_LENGTH), len(data) - end - 4
    if at < 0:
        lacks = -has
    elif head.find(_LENGTH, at + 1) >= 0:
        return None
    else:
        digits = head[at + len(_LENGTH) : head.find(b"\r", at + 2)]
        if digits[:1] != b":" or not (digits := digits[1:].strip(b" \t")).isdigit():
            return None
        lacks = int(digits) - has if len(digits) < 10 else -1
    if lacks < 0 or (b"\r\nconnection" in head and _KEPT not in head):
        return None
    if any(word in head for word in _UNUSUAL) or head.count(b"\n") != head.count(b"\r\n"):
        return None
    return Framed(head, lacks)


class Refusals:
    """Answers made once for each reason; what varies is the request's id and when to try again."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._numbers = itertools.count()
        self._made: dict[str, list[tuple[bytes, bytes]]] = {}

    def answer(self, why: Shut, request: Framed, data: bytes) -> bytes:
        """The whole answer, head and body."""
        number = next(self._numbers)
        made = self._made.get(why.reason)
        if made is None:
            made = self._made[why.reason] = _made(why)
        before, after = made[number % len(made)]
        return before + (_sent_id(request, data) or b"%b%x" % (self._prefix, number)) + after


def _sent_id(request: Framed, data: bytes) -> bytes | None:
    at = request.head.find(_ID)
    if at < 0:
        return None
    sent = data[at + len(_ID) : data.find(b"\r", at + 2)].strip(b" \t")
    return sent if _SENT_ID.fullmatch(sent) else None


def _made(why: Shut) -> list[tuple[bytes, bytes]]:
    return [_cut(written(_refusal(why, after_s))) for after_s in range(1, RETRY_AFTER_MAX_S + 1)]


def _refusal(why: Shut, after_s: int) -> web.Response:
    response = problems.answer(Overloaded(f"{why.detail}: try again", after_s))
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
