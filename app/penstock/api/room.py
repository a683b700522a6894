"""Room for bodies: how many bytes of them are in the house at once, and whose they are.

In: bytes as they arrive, counted by request. Always holds: only what has come is counted, never
what was announced; large bodies leave an eighth to small ones, and one caller leaves half to the
others, so that nobody shuts the door for everybody.
"""

from penstock.api.problems import Problem

SMALL_MAX_BYTES = 64 * 1024
_FOR_SMALL = 8  # one part in so many is kept for small bodies
_FOR_OTHERS = 2  # one part in so many is kept for other callers


class Room:
    """One for the whole door, of `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self.taken = 0
        self._max = bytes_max
        self._large_max = bytes_max - bytes_max // _FOR_SMALL
        self._own_max = bytes_max - bytes_max // _FOR_OTHERS
        self._taken_by: dict[str, int] = {}

    def share(self, sub: str) -> "Share":
        """For one request of this caller; give it back when it has been answered."""
        return Share(self, sub)

    def take(self, sub: str, size: int, *, is_large: bool) -> None:
        """Raises 503 where there is no room, with nothing taken."""
        own = self._taken_by.get(sub, 0) + size
        whole = self.taken + size
        if whole > (self._large_max if is_large else self._max):
            raise _full("too much is being taken in")
        if own > self._own_max:
            raise _full("too much of yours is being taken in")
        self.taken = whole
        self._taken_by[sub] = own

    def give_back(self, sub: str, size: int) -> None:
        self.taken -= size
        left = self._taken_by[sub] - size
        if left:
            self._taken_by[sub] = left
        else:
            del self._taken_by[sub]


class Share:
    """What one request has taken."""

    __slots__ = ("_room", "_sub", "taken")

    def __init__(self, room: Room, sub: str) -> None:
        self.taken = 0
        self._room = room
        self._sub = sub

    def take(self, size: int) -> None:
        """Counts bytes that have come. Raises 503 where there is no room for them."""
        is_large = self.taken + size > SMALL_MAX_BYTES
        self._room.take(self._sub, size, is_large=is_large)
        self.taken += size

    def give_back(self) -> None:
        if self.taken:
            self._room.give_back(self._sub, self.taken)
            self.taken = 0


def _full(why: str) -> Problem:
    return Problem("overloaded", f"{why}: try again", headers={"Retry-After": "1"})
