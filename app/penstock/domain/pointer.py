"""JSON Pointers (RFC 6901) as they are shown to callers: never longer than what they may echo."""

NAME_MAX = 64  # characters of a caller's own name that are repeated


def step(name: str | int) -> str:
    """One step of a pointer, cut where a caller's own name is too long to repeat."""
    text = str(name)
    short = text if len(text) <= NAME_MAX else text[:NAME_MAX] + "…"
    return "/" + short.replace("~", "~0").replace("/", "~1")
