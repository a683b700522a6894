"""Named SQL: `-- name: x` opens a block in `sql/*.sql`, the next name or the end closes it."""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load() -> dict[str, str]:
    """All blocks of all files by name. A name that stands twice is a bug."""
    found: dict[str, str] = {}
    for file in sorted((files("penstock.store") / "sql").iterdir(), key=lambda f: f.name):
        parts = _NAME.split(file.read_text())
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise ValueError(f"the query {name} stands twice")
            found[name] = body.strip()
    return found
