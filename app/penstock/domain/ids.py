"""Job and worker ids: UUIDv7 (RFC 9562), carried as 16 bytes through the engine.

Postgres and Redis both take the 16 bytes as they are; only the door and the logs need text.
Ids of one `Minter` grow strictly, so jobs of one batch keep their order among equal scores.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import NewType

JobId = NewType("JobId", bytes)
WorkerId = NewType("WorkerId", bytes)

BYTES = 16

_FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TAIL_BITS = 74  # what RFC 9562 leaves beside 48 bits of time, the version and the variant
_STEP_MAX = 1 << 32  # the tail's step: large enough that ids can't be guessed by counting


class Minter:
    """Mints UUIDv7 bytes from a clock (ms since 1970) and a source of random integers.

    `rand(n)` answers an integer of n random bits. Within one millisecond, or while the clock
    stands or goes back, the tail is counted up by a random step (RFC 9562, 6.2, method 2).
    """

    def __init__(self, now_ms: Callable[[], int], rand: Callable[[int], int]) -> None:
        self._now_ms = now_ms
        self._rand = rand
        self._last = 0

    def mint(self) -> bytes:
        """The next id, larger than every id before it."""
        fresh = (self._now_ms() << _TAIL_BITS) | self._rand(_TAIL_BITS - 1)
        if fresh >> _TAIL_BITS <= self._last >> _TAIL_BITS:
            fresh = self._last + 1 + self._rand(32) % _STEP_MAX
        self._last = fresh
        return _pack(fresh)


def _pack(value: int) -> bytes:
    """Sets version 7 and the variant between the 48 + 12 + 62 bits of `value`."""
    ms, rand_a, rand_b = value >> 74, (value >> 62) & 0xFFF, value & ((1 << 62) - 1)
    return ((ms << 80) | (7 << 76) | (rand_a << 64) | (2 << 62) | rand_b).to_bytes(16, "big")


def nth_of(job: JobId, ordinal: int) -> JobId:
    """The id of the nth job that a job submits, the same whenever it does: the job's time and, for
    a tail, what SHA-256 makes of both."""
    digest = sha256(job + ordinal.to_bytes(8, "big")).digest()
    tail = int.from_bytes(digest, "big") >> (len(digest) * 8 - _TAIL_BITS)
    return JobId(_pack((created_ms(job) << _TAIL_BITS) | tail))


def text(id_: bytes) -> str:
    """The usual form with hyphens, 36 characters."""
    h = id_.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def parse(value: str) -> JobId | None:
    """The id that `value` names, or None when it has not the usual form."""
    low = value.lower()
    return JobId(bytes.fromhex(low.replace("-", ""))) if _FORM.fullmatch(low) else None


def least(ms: int) -> bytes:
    """Smaller than every id that is minted at that millisecond or later."""
    return ms.to_bytes(6, "big") + bytes(BYTES - 6)


def created_ms(id_: bytes) -> int:
    """When the id was minted: milliseconds since 1970, by Postgres' clock."""
    return int.from_bytes(id_[:6], "big")
