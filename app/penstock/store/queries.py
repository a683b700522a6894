"""Named SQL: `-- name: x` opens a statement in `sql/*.sql`, the next name or the end closes it.

What statements of a file share stands there once, before them, as a part: `-- part: x(a; b)` opens
it, and `@a` in it is what `@x(…; …)` gives first, where a statement uses it. Parts are put in when
the files are read, so Postgres sees whole statements. What a use gives may hold brackets, one deep.
"""

import re
from importlib.resources import files

_OPENS = re.compile(r"^-- (name|part): (\w+)(?:\((.*)\))?\s*$", re.MULTILINE)
_USE = re.compile(r"@(\w+)(?:\(((?:[^()]|\([^()]*\))*)\))?")
_PLACE = re.compile(r"@(\w+)")
_REMARKS = re.compile(r"\A(?:--.*\n)+")

_Parts = dict[str, tuple[list[str], str]]  # by name: what its places are called, and its text


def load() -> dict[str, str]:
    """All statements of all files by name. A name that stands twice is a bug."""
    found: dict[str, str] = {}
    for file in sorted((files("penstock.store") / "sql").iterdir(), key=lambda f: f.name):
        for name, sql in statements(file.read_text()):
            if name in found:
                raise ValueError(f"the query {name} stands twice")
            found[name] = sql
    return found


def statements(text: str) -> list[tuple[str, str]]:
    """Those of one file, with their names."""
    found, parts = [], _Parts()
    blocks = iter(_OPENS.split(text)[1:])
    for sort, name, places, body in zip(blocks, blocks, blocks, blocks, strict=True):
        if sort == "part":
            parts[name] = _split(places), _REMARKS.sub("", body.strip())
        else:
            found.append((name, _put_together(body.strip(), parts)))
    return found


def _put_together(text: str, parts: _Parts) -> str:
    def part(use: re.Match[str]) -> str:
        places, body = parts[use[1]]
        given = dict(zip(places, _split(use[2]), strict=True))
        return _put_together(_PLACE.sub(lambda it: given.get(it[1], it[0]), body), parts)

    return _USE.sub(part, text)


def _split(places: str | None) -> list[str]:
    return [] if places is None else [place.strip() for place in places.split(";")]
