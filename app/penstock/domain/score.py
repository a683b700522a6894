"""Who is next on a shelf: smaller scores first. Whole milliseconds, exact in a double."""

_STRICT_STEP = 1 << 42  # ms; larger than any date until the year 2109


def ready_score(priority: int, ready_ms: int, aging_ms: float) -> float:
    """The place on a ready shelf. A step of priority is worth `aging_ms` of waiting; 0 is strict.

    claim order in SQL (line.sql, line_head) and in promote.lua is the same.
    """
    if aging_ms == 0:
        return float((9 - priority) * _STRICT_STEP + ready_ms)
    return float(ready_ms - priority * int(aging_ms))
