"""Reads an answer's body up to a limit, decompressing as it comes, so that no bomb unfolds."""

import zlib

from aiohttp import ClientResponse, StreamReader

from penstock.egress.errors import EgressError

_CHUNK_BYTES = 64 * 1024
_GZIP_WBITS = 31
_ZLIB_WBITS = 15
_RAW_WBITS = -15
_GZIP_MAGIC = 0x1F


async def read_body(answer: ClientResponse, bytes_max: int) -> tuple[bytes, bool]:
    """The decompressed body cut at `bytes_max`, and whether it was cut."""
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("gzip", "x-gzip", "deflate"):
        return await _inflated(answer.content, bytes_max, gzip=coding != "deflate")
    return await _plain(answer.content, bytes_max)


async def _plain(content: StreamReader, bytes_max: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > bytes_max:
            return bytes(body[:bytes_max]), True
    return bytes(body), False


async def _inflated(content: StreamReader, bytes_max: int, *, gzip: bool) -> tuple[bytes, bool]:
    inflater = Inflater(bytes_max, gzip=gzip)
    received = 0
    async for chunk in content.iter_chunked(_CHUNK_BYTES):
        received += len(chunk)
        inflater.feed(chunk)
        # A stream that grows without unfolding is cut as well.
        if inflater.full or received > bytes_max + _CHUNK_BYTES:
            return inflater.body(), True
    return inflater.body(), False


class Inflater:
    """gzip (several members too) and deflate (with or without zlib's header), bounded."""

    def __init__(self, bytes_max: int, *, gzip: bool) -> None:
        self._gzip = gzip
        self._bytes_max = bytes_max
        self._body = bytearray()
        self._zlib: zlib._Decompress | None = None
        self._members = 0
        self._ended = False

    @property
    def full(self) -> bool:
        return len(self._body) > self._bytes_max

    def body(self) -> bytes:
        return bytes(self._body[: self._bytes_max])

    def feed(self, data: bytes) -> None:
        try:
            while data and not self.full and not self._ended:
                data = self._step(data)
        except zlib.error as exc:
            raise EgressError(f"the answer's compression is broken: {exc}") from exc

    def _step(self, data: bytes) -> bytes:
        """Unfolds at most one byte more than there is room for; answers what is left to do."""
        if self._zlib is None:
            if self._members and data[0] != _GZIP_MAGIC:  # padding behind the last member
                self._ended = True
                return b""
            self._zlib = zlib.decompressobj(self._wbits(data[0]))
        self._body += self._zlib.decompress(data, self._bytes_max + 1 - len(self._body))
        if not self._zlib.eof:
            return self._zlib.unconsumed_tail
        rest, self._zlib = self._zlib.unused_data, None
        self._members += 1
        self._ended = not self._gzip
        return rest

    def _wbits(self, first: int) -> int:
        if self._gzip:
            return _GZIP_WBITS
        return _ZLIB_WBITS if first & 0x0F == zlib.DEFLATED else _RAW_WBITS
