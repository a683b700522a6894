"""Settings that can be read again: how to, and the files by which to see that it is time.

In: the environment, as at the start. Out: settings, and the stamps of the files that they come
from. A stamp changes when a file is written or another takes its place, also behind symbolic links,
which is how Kubernetes exchanges what it mounts. What has no stamps, as SSM, is asked each time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.settings import ssm
from penstock.settings.loading import load
from penstock.settings.names import SettingsError
from penstock.settings.sections import Settings
from penstock.settings.sources import files_of

Stamps = Mapping[str, tuple[int, int, int] | None]  # by path; None: there is no such file


@dataclass(frozen=True, slots=True)
class Source:
    """`load` takes as long as files and networks do, and raises SettingsError; `stamps` tells of
    the files that such settings come from, or would if they were there."""

    load: Callable[[], Settings]
    stamps: Callable[[Settings], Stamps]


def source_of(environ: Mapping[str, str], over: Mapping[str, object] | None = None) -> Source:
    """`over`: what the command line says instead."""

    def read() -> Settings:
        settings = load(environ, parameters=ssm.fetch(environ))
        return told_over(settings, over) if over else settings

    return Source(read, lambda settings: _stamps(environ, settings))


def told_over(settings: Settings, over: Mapping[str, object]) -> Settings:
    """Settings with what the command line says."""
    changed = settings.model_copy(update=dict(over))
    changed._origins = {**settings._origins, **dict.fromkeys(over, "the command line")}
    return changed


def fixed(settings: Settings) -> Source:
    """Settings that come from nowhere: read again, they are the same."""
    return Source(lambda: settings, lambda _settings: {})


def _stamps(environ: Mapping[str, str], settings: Settings) -> Stamps:
    try:
        paths = files_of(environ)
    except (OSError, SettingsError):  # a directory is gone: reading the settings will tell
        paths = []
    paths += [Path(key.file) for key in settings.auth.public_keys if key.file is not None]
    return {str(path): _stamp(path) for path in paths}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
