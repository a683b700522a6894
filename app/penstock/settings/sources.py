"""Where settings come from, in this order, the later winning value by value: base.yaml, the
environment's YAML, environment variables.

In: the environment and the directory of YAML files. Out: `Found`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from penstock.settings import yaml_file
from penstock.settings.found import Found
from penstock.settings.names import SettingsError
from penstock.settings.variables import ENVIRONMENT, put_variables, secret_files


def gather(environ: Mapping[str, str], config_dir: Path) -> Found:
    """Reads all sources; what is wrong with them is in the answer's `errors`."""
    environment = environ.get(ENVIRONMENT, "production")
    found = Found(environment)
    try:
        for path in _yaml_files(config_dir, environment):
            file = yaml_file.read(path)
            found.errors.extend(file.errors)
            found.put_tree(file.tree, file.place)
    except SettingsError as error:
        found.errors.append(error)
    put_variables(found, environ)
    return found


def files_of(environ: Mapping[str, str], config_dir: Path) -> list[Path]:
    """The files that settings are read from, whether they are there or not."""
    environment = environ.get(ENVIRONMENT, "production")
    return [config_dir / "base.yaml", config_dir / f"{environment}.yaml", *secret_files(environ)]


def _yaml_files(config_dir: Path, environment: str) -> Iterator[Path]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", environment):
        raise SettingsError(
            f"{ENVIRONMENT} is {environment!r}: use small letters, digits, - and _ only"
        )
    base = config_dir / "base.yaml"
    if base.is_file():
        yield base
    own = config_dir / f"{environment}.yaml"
    if own.is_file():
        yield own
    elif environment != "production":
        # A misspelt name must not start a server with another environment's settings.
        there = {path.stem for path in config_dir.glob("*.yaml")} - {"base"}
        known = ", ".join(sorted(there | {"production"}))
        raise SettingsError(
            f"{ENVIRONMENT} is {environment!r}, but there is no {own}: "
            f"write that file or choose one of {known}"
        )
