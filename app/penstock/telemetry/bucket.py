"""A token bucket: so many at once, then so many a second. Whoever shares one brings the lock."""

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """`at`: a reading of a clock that doesn't go back."""

    tokens: float
    at: float

    def take(self, count: int, most: int, per_s: float, now: float) -> int:
        """Up to `count` whole tokens; the bucket holds `most` and gets `per_s`."""
        tokens = min(self.tokens + (now - self.at) * per_s, float(most))
        taken = min(count, int(tokens))
        self.tokens, self.at = tokens - taken, now
        return taken
