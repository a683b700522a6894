"""Turns good requests into bad ones, byte by byte; the same seed gives the same ones."""

import random
import re
from collections.abc import Callable, Sequence

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_STRING = re.compile(rb'"[^"\\]*"')
_LENGTH = re.compile(rb"(?i)content-length: *\d+")
_END = b"\r\n\r\n"

NUMBERS = [
    *(b"0", b"-1", b"-0", b"1e400", b"1e308", b"5e-324", b"0.1", b"01", b"+1", b"0x10", b"NaN"),
    *(b"9007199254740992", b"9007199254740993", b"-9007199254740993", b"18446744073709551616"),
    *(b"2147483648", b"99999999999", b"1" * 40, b"1" * 400, b"1" * 5000, b"Infinity", b"1_0"),
]
VALUES = [
    *(b"null", b"true", b"{}", b"[]", b"0", b"-1", b"1e9", b'""', b'"\\u0000"', b'"\\ud800"'),
    *(
        b'"kind"',
        b'"echo"',
        b'"payload"',
        b'"queue"',
        b'"tags"',
        b'"run_at"',
        b'"2027-01-01T00:00:00Z"',
    ),
    *('"\u202e💥"'.encode(), b'"' + b"a" * 70 + b'"', b"[[[[[]]]]]", b'{"a":{"b":1}}', b'"../x"'),
]
PIECES = [
    *(b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\t", b" ", b"%00", b"%ff", b"%2e%2e", b"//"),
    *(b"?", b"#", b"&a=b", b"?limit=1", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
    *(b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"\xef\xbb\xbf", "\u202e\u200b".encode()),
    *("e\u0301\u0301\u0301\ufdfa".encode(), b"\\", b'"', b"{", b"}", b"[", b"]", b",", b":"),
    *(b"[" * 40, b'{"a":' * 40, b"[" * 2000, b"a" * 9000, b"null", b"true", b"{}", b'"jobs":'),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"chunked"),
    *(
        b"Content-Length: 0\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"HTTP/1.0"),
    *(b"Content-Encoding: gzip\r\n", b"X-Request-Id: \xff\r\n", b"Prefer: wait=1\r\n", b"GET "),
    *(b"CONNECT x:1 HTTP/1.1\r\n", b"HEAD ", b"http://x/livez", b"Authorization: Bearer x\r\n"),
    *(
        b'"state":"dead",',
        b'"kind":"http",',
        b'"priority":-1,',
        b'"run_at":"0001-01-01T00:00:00+23:59",',
    ),
]


class Mutator:
    """Mutants of `seeds`, endlessly."""

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._seeds = seeds
        self._random = random.Random(seed)

    def next(self) -> bytes:
        """One request: hardly changed, or wrecked."""
        rand = self._random
        sent = rand.choice(self._seeds)
        head, end, body = sent.partition(_END)
        times = rand.choice((1, 1, 1, 2, 3, 6))
        if body and rand.random() < 0.6:  # a head that is right, so that the body is looked at
            body = self._mutated(body, times)
            return _LENGTH.sub(b"Content-Length: %d" % len(body), head) + end + body
        if rand.random() < 0.5:  # only the first line
            line, crlf, rest = sent.partition(b"\r\n")
            return self._mutated(line, times) + crlf + rest
        return self._mutated(sent, times)

    def _mutated(self, data: bytes, times: int) -> bytes:
        for _ in range(times):
            data = self._random.choice(_WAYS)(self, data)
        return data

    def _place(self, data: bytes) -> int:
        return self._random.randint(0, len(data))

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._place(data)
        return start, min(start + self._random.choice((1, 2, 4, 16, 100)), len(data))

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << self._random.randrange(8))]) + data[at + 1 :]

    def _insert(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._random.choice(PIECES) + data[at:]

    def _noise(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._random.randbytes(self._random.choice((1, 3, 20))) + data[at:]

    def _delete(self, data: bytes) -> bytes:
        start, stop = self._span(data)
        return data[:start] + data[stop:]

    def _replace(self, data: bytes) -> bytes:
        start, stop = self._span(data)
        return data[:start] + self._random.choice(PIECES) + data[stop:]

    def _duplicate(self, data: bytes) -> bytes:
        start, stop = self._span(data)
        return data[:stop] + data[start:stop] * self._random.choice((1, 2, 50)) + data[stop:]

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._place(data)]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._seeds)
        return data[: self._place(data)] + other[self._place(other) :]

    def _number(self, data: bytes) -> bytes:
        numbers = list(_NUMBER.finditer(data))
        if not numbers:
            return data
        one = self._random.choice(numbers)
        return data[: one.start()] + self._random.choice(NUMBERS) + data[one.end() :]

    def _value(self, data: bytes) -> bytes:
        """Another JSON value, or another name, for a string."""
        strings = list(_STRING.finditer(data))
        if not strings:
            return data
        one = self._random.choice(strings)
        return data[: one.start()] + self._random.choice(VALUES) + data[one.end() :]

    def _line(self, data: bytes) -> bytes:
        """Doubles, drops or moves a line of the head."""
        lines = data.split(b"\r\n")
        line = self._random.choice(lines)
        if self._random.random() < 0.5:
            lines.remove(line)
        if self._random.random() < 0.7:
            lines.insert(self._random.randint(0, len(lines)), line)
        return b"\r\n".join(lines)


_WAYS: Sequence[Callable[[Mutator, bytes], bytes]] = (
    *(Mutator._flip, Mutator._insert, Mutator._noise, Mutator._delete, Mutator._replace),
    *(Mutator._duplicate, Mutator._truncate, Mutator._splice, Mutator._number, Mutator._number),
    *(Mutator._value, Mutator._value, Mutator._value, Mutator._number, Mutator._line),
)
