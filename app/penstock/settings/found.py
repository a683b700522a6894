"""What the sources gave, merged: each value by its dotted key, with the place it came from.

In: trees (YAML, JSON) and texts (variables, parameters, files), the later winning, value by value.
Out: one tree for pydantic. Always holds: what is not a setting is an error, with the nearest known
name, and errors are gathered: all of them are told at once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.settings.names import (
    MAPS,
    Path,
    SettingsError,
    Shape,
    field_of,
    holds,
    path_of,
    sections,
    shape_at,
    way_out,
)


@dataclass(frozen=True)
class Found:
    """`origins`: where each value came from; `within`: where what lies in it did, by its path;
    `errors`: what could not be read."""

    environment: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    within: dict[str, Callable[[Path], str]] = field(default_factory=dict)
    errors: list[SettingsError] = field(default_factory=list)

    def put(self, key: str, value: object, origin: str) -> None:
        """Remembers a value; a later source wins."""
        self.values[key] = value
        self.origins[key] = origin
        self.within.pop(key, None)

    def place(self, key: str, inner: Sequence[str] = ()) -> str:
        """Where a value came from, or what lies at `inner` in it."""
        if inner and key in self.within:
            return self.within[key]((*(path_of(key) or (key,)), *inner))
        return self.origins.get(key, "default")

    def put_text(self, key: str, text: str, origin: str, show: Callable[[str], str] = str) -> None:
        """Remembers what a text means for its setting. `show`: how its source names keys."""
        if key in MAPS:
            tree = _json(text, dict)
            if tree is None:
                example = '{"<name>": {"max_attempts": 3}}'
                self.blame(f"{origin}: {key} must be a JSON object, for example {example}", key)
            else:
                self.put_tree(tree, lambda _: origin, (key,))
            return
        info = field_of(key)
        if info is None:
            self.blame(f"{origin}: {show(key)} is not a setting: {way_out(key, show)}", key)
        elif not holds(info.annotation, tuple):
            self.put(key, text, origin)
        elif (items := _json(text, list)) is not None:
            self.put(key, items, origin)
        else:
            example = '["one", "two"]'
            self.blame(f"{origin}: {key} must be a JSON list, for example {example}", key)

    def put_tree(
        self, tree: Mapping[str, Any], origin_of: Callable[[Path], str], path: Path = ()
    ) -> None:
        """Remembers all values below a path; nothing (null) leaves a value as it was."""
        for name, value in tree.items():
            here = (*path, name)
            key, shape = ".".join(here), shape_at(here)
            if shape is None:
                way = way_out(key, str)
                self.blame(f"{origin_of(here)}: {key} is not a setting: {way}", key)
            elif value is None:
                continue
            elif shape is Shape.VALUE:
                self.put(key, value, origin_of(here))
                self.within[key] = origin_of
            elif isinstance(value, dict):
                self.put_tree(value, origin_of, here)
            else:
                way = "write its settings below it, indented"
                self.blame(f"{origin_of(here)}: {key} is a section: {way}", key)

    def blame(self, text: str, key: str | None = None) -> None:
        """Remembers what is wrong."""
        self.errors.append(SettingsError(text, key))

    def nested(self) -> dict[str, Any]:
        """The values as pydantic wants them: `http.port` is in `["http"]["port"]`."""
        # A section that nothing is said of is there too, so that each setting it lacks is named.
        tree: dict[str, Any] = {name: {} for name in sections()}
        for key, value in self.values.items():
            path = path_of(key) or (key,)
            inner = tree
            for name in path[:-1]:
                inner = inner.setdefault(name, {})
            inner[path[-1]] = value
        return tree


def _json(text: str, wanted: type) -> Any:
    """The value of a JSON text; None: it isn't of that type."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, wanted) else None
