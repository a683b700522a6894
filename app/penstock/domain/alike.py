"""Which failures are alike: dead letters are grouped by it. Pure."""

import hashlib


def fingerprint(kind: str, error_type: str, place: str) -> str:
    """The same for failures that are alike: 16 hexadecimal digits."""
    return hashlib.sha256(f"{kind}\n{error_type}\n{place}".encode()).hexdigest()[:16]


def place_of(details: object) -> str:
    """Where it failed, as an error's details tell: the innermost frame, without its line."""
    frames = details.get("traceback") if isinstance(details, dict) else None
    if not isinstance(frames, list) or not frames:
        return ""
    module, _, rest = str(frames[-1]).partition(":")
    return f"{module} {rest.partition(' in ')[2]}"
