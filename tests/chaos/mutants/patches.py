"""A copy of the package with some of its text changed, for a replica to run from."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True, slots=True)
class Patch:
    """`old` must stand in the file exactly once, else the patch has outlived the code."""

    file: str  # below app/penstock
    old: str
    new: str


class Outlived(AssertionError):
    """A patch's old text isn't there exactly once: write the patch anew."""


def copied(to: Path, patches: Iterable[Patch], source: Path = ROOT) -> Path:
    """Copies the package of a checkout to `to` and applies the patches in order; the directory for
    PYTHONPATH."""
    shutil.copytree(source / "app" / "penstock", to / "app" / "penstock", ignore=_IGNORED)
    for name in ("config", "migrations"):  # where penstock/places.py looks for them
        (to / name).symlink_to(ROOT / name)
    for patch in patches:
        file = to / "app" / "penstock" / patch.file
        file.write_text(applied(file.read_text(), patch))
    return to / "app"


def applied(text: str, patch: Patch) -> str:
    """The text after a patch; raises Outlived."""
    if (count := text.count(patch.old)) != 1:
        raise Outlived(f"{patch.file} has {count} times, not once:\n{patch.old}")
    return text.replace(patch.old, patch.new)


def applicable(patches: Iterable[Patch]) -> None:
    """Raises Outlived if these can't be applied one after the other."""
    texts: dict[str, str] = {}
    for patch in patches:
        text = texts.get(patch.file) or (ROOT / "app" / "penstock" / patch.file).read_text()
        texts[patch.file] = applied(text, patch)
