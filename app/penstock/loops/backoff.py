"""How long a loop waits before it tries again what failed."""

import random


def backoff_s(failures: int, first_s: float = 0.02, max_s: float = 0.5) -> float:
    """The pause after so many failures in a row, with jitter. By default that of what must get to
    Postgres, however long it is away."""
    longest: float = min(first_s * 2 ** min(failures, 10), max_s)
    return longest * random.uniform(0.5, 1.0)
