"""Where settings come from, in this order, the later winning value by value: base.yaml, the
environment's YAML, SSM parameters, secret files, environment variables.

In: the environment; the directory of YAML files, else PENSTOCK_CONFIG_DIR, else our own; the
parameters, where somebody has asked for them. Out: `Found`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from penstock import places
from penstock.settings import ssm, yaml_file
from penstock.settings.found import Found
from penstock.settings.names import SettingsError
from penstock.settings.secret_files import files_in_directory, put_secret_files
from penstock.settings.variables import CONFIG_DIR, ENVIRONMENT, files_named, put_variables


def gather(
    environ: Mapping[str, str],
    config_dir: Path | None = None,
    parameters: ssm.Parameters | None = None,
) -> Found:
    """Reads all sources; what is wrong with them is in the answer's `errors`."""
    environment = environ.get(ENVIRONMENT, "production")
    found = Found(environment)
    try:
        for path in _yaml_files(config_dir or _config_dir(environ), environment):
            file = yaml_file.read(path)
            found.errors.extend(file.errors)
            found.put_tree(file.tree, file.place)
    except SettingsError as error:
        found.errors.append(error)
    try:
        ssm.put_parameters(found, ssm.fetched(environ) if parameters is None else parameters)
    except SettingsError as error:
        found.errors.append(error)
    put_secret_files(found, environ)
    put_variables(found, environ)
    return found


def files_of(environ: Mapping[str, str], config_dir: Path | None = None) -> list[Path]:
    """The files that settings are read from, whether they are there or not. Raises
    SettingsError."""
    directory, environment = config_dir or _config_dir(environ), environ.get(ENVIRONMENT)
    yaml = [directory / "base.yaml", directory / f"{environment or 'production'}.yaml"]
    return [*yaml, *files_in_directory(environ), *files_named(environ)]


def _config_dir(environ: Mapping[str, str]) -> Path:
    given = environ.get(CONFIG_DIR)
    if given is None:
        return places.config_dir()
    if not Path(given).is_dir():
        raise SettingsError(f"{CONFIG_DIR} is {given!r}: there is no such directory")
    return Path(given)


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
