"""A YAML file with the line of each of its values.

In: a path. Out: its tree, and where each value stands. Always holds: a name that is there twice is
an error (YAML's readers take the last one, and say nothing), and so is a file that is large, or
becomes large by its anchors.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from penstock.settings import names
from penstock.settings.names import SettingsError

BYTES_MAX = 512 * 1024
NODES_MAX = 100_000  # names, values and items, with what anchors repeat
DEPTH_MAX = 20

# Where a message has text of the file: to YAML `password: *hush` is an alias.
_QUOTED = re.compile(r"\b(alias|anchor|tag|handle) '.*?'")
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class YamlFile:
    """`lines`: of the names in its mappings and the items of its lists, by their path."""

    name: str
    tree: dict[Any, Any] = field(default_factory=dict)
    lines: dict[names.Path, int] = field(default_factory=dict)
    errors: list[SettingsError] = field(default_factory=list)

    def place(self, path: names.Path) -> str:
        """`config/base.yaml:14`, as editors take it; of what isn't there, where it would be."""
        while path not in self.lines and path:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}"


def read(path: Path) -> YamlFile:
    """Raises SettingsError where nothing of it can be read."""
    file = YamlFile(_shown(path))
    try:
        loader = yaml.SafeLoader(_text(path, file.name))
        try:
            node = loader.get_single_node()
            if node is None:
                return file
            if not isinstance(node, yaml.MappingNode):
                raise SettingsError(
                    f"{file.name} must hold sections (`http:`, `worker:`, ...) at its top"
                )
            _bound(node, file.name)
            file.tree.update(_built(loader, node, (), file))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        where = f"{file.name}:{at.line + 1}" if at else file.name
        problem = _QUOTED.sub(r"\1", error.problem or error.context or "")
        raise SettingsError(f"{where}: can't be read: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{file.name} can't be read: {reason}") from None
    return file


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise SettingsError(f"{name} can't be read: it has more than {BYTES_MAX} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{name} can't be read: {reason}") from None


def _shown(path: Path) -> str:
    here = Path.cwd()
    is_below = here != here.parent and path.is_relative_to(here)  # everything is below /
    return str(path.relative_to(here) if is_below else path)


def _bound(root: yaml.Node, name: str) -> None:
    """Anchors make much of little, or a ring: each use counts."""
    count, level = 0, [root]
    for _ in range(DEPTH_MAX):
        count += len(level)
        if count > NODES_MAX:
            raise SettingsError(f"{name} can't be read: it has more than {NODES_MAX} values")
        level = [inner for node in level for inner in _inner(node)]
        if not level:
            return
    raise SettingsError(f"{name} can't be read: it is more than {DEPTH_MAX} levels deep")


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield name
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _built(loader: yaml.SafeLoader, node: yaml.Node, path: names.Path, file: YamlFile) -> Any:
    """The value of a node. Names are taken as they are written: `on` is no yes, 1.0 no number."""
    if isinstance(node, yaml.SequenceNode):
        items = [((*path, str(n)), item) for n, item in enumerate(node.value)]
        file.lines.update((here, item.start_mark.line + 1) for here, item in items)
        return [_built(loader, item, here, file) for here, item in items]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(loader, node, file)
    _tell_twins(node, path, file)
    loader.flatten_mapping(node)  # what `<<` takes over stands before what is here, so this wins
    value = {}
    for name, inner in node.value:
        here = (*path, str(name.value))
        file.lines[here] = name.start_mark.line + 1
        value[here[-1]] = _built(loader, inner, here, file)
    return value


def _scalar(loader: yaml.SafeLoader, node: yaml.Node, file: YamlFile) -> Any:
    try:
        return loader.construct_object(node)
    except ValueError as error:  # of 2026-02-31, or of a number with thousands of digits
        where = f"{file.name}:{node.start_mark.line + 1}"
        raise SettingsError(f"{where}: can't be read: {error}") from None


def _tell_twins(node: yaml.MappingNode, path: names.Path, file: YamlFile) -> None:
    seen: dict[str, int] = {}
    for name, _ in node.value:
        line, text = name.start_mark.line + 1, str(name.value)
        if text in seen and name.tag != _MERGE:
            key = ".".join((*path, text))
            why = f"{key} is there twice, first in line {seen[text]}: drop one"
            file.errors.append(SettingsError(f"{file.name}:{line}: {why}", key))
        seen[text] = line
