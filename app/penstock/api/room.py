"""Room for bodies, and for answers: how many bytes of them are in the house, and whose they are.

In: bytes of bodies as they arrive, and of large answers until they are taken off; by request.
Always holds: of bodies only what has come is counted, never what was announced; large ones leave
an eighth to small ones, and one caller leaves half to the others, so that nobody shuts the door
for everybody. Answers of 64 KiB or less need no room.
"""

from penstock.api.problems import Problem

SMALL_MAX_BYTES = 64 * 1024
_FOR_SMALL = 8  # one part in so many is kept for small bodies
_FOR_OTHERS = 2  # one part in so many is kept for other callers


class Room:
    """One for the whole door, of `bytes_max`. `done`: what is done with the bytes, for refusals."""

    def __init__(self, bytes_max: int, done: str = "taken in") -> None:
        self.taken = 0
        self._done = done
        self._max = bytes_max
        self._large_max = bytes_max - bytes_max // _FOR_SMALL
        self._own_max = bytes_max - bytes_max // _FOR_OTHERS
        self._taken_by: dict[str, int] = {}

    def share(self, sub: str) -> "Share":
        """For one request of this caller; give it back when it has been answered."""
        return Share(self, sub)

    def take(self, sub: str, size: int, *, is_large: bool = False) -> None:
        """Raises 503 where there is no room, with nothing taken."""
        if self.taken + size > (self._large_max if is_large else self._max):
            raise _full(f"too much is being {self._done}")
        if self._taken_by.get(sub, 0) + size > self._own_max:
            raise _full(f"too much of yours is being {self._done}")
        self.count(sub, size)

    def count(self, sub: str, size: int) -> None:
        """Takes it even where there is no room."""
        self.taken += size
        self._taken_by[sub] = self._taken_by.get(sub, 0) + size

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

    def foresee(self, size: int) -> None:
        """Room for an answer of this size. Raises 503 where there is none."""
        if size > SMALL_MAX_BYTES and size > self.taken:
            self._room.take(self._sub, size - self.taken)
            self.taken = size

    def settle(self, size: int, *, is_done: bool = False) -> None:
        """What the answer came to. Raises 503 as `foresee` does, unless the answer tells of what
        `is_done`: that mustn't read as a refusal."""
        if size <= SMALL_MAX_BYTES:
            self.give_back()
        elif size < self.taken:
            self._room.give_back(self._sub, self.taken - size)
            self.taken = size
        elif is_done:
            self._room.count(self._sub, size - self.taken)
            self.taken = size
        else:
            self.foresee(size)

    def give_back(self) -> None:
        if self.taken:
            self._room.give_back(self._sub, self.taken)
            self.taken = 0


def _full(why: str) -> Problem:
    return Problem("overloaded", f"{why}: try again", headers={"Retry-After": "1"})
