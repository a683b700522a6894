"""Settings in files of their own, as Docker and Kubernetes mount secrets.

In: a directory with a file for each setting, called by its key (postgres.dsn) or by its variable
(PENSTOCK_POSTGRES__DSN, postgres__dsn). Out: what they set, put into `Found`. Names that begin with
a dot are passed over: Kubernetes keeps its own there.
"""

from collections.abc import Mapping
from pathlib import Path

from penstock.settings.found import Found
from penstock.settings.names import PREFIX, key_of_variable

SECRETS_DIR = "PENSTOCK_SECRETS_DIR"
DIRECTORY = Path("/run/secrets/penstock")  # looked at where the variable isn't set
FILE_MAX_BYTES = 64 * 1024


def put_secret_files(found: Found, environ: Mapping[str, str]) -> None:
    """Adds what the files set; one that is wrong doesn't keep the others from being read."""
    try:
        files = files_in_directory(environ)
    except OSError as error:
        directory = environ.get(SECRETS_DIR, DIRECTORY)
        found.blame(f"{SECRETS_DIR}, {directory}, can't be read: {error.strerror}")
        return
    seen: dict[str, Path] = {}
    for path in files:
        key = _key_of(path.name)
        if key in seen:
            found.blame(f"{path}: {key} is in {seen[key].name} too: drop one", key)
        else:
            seen[key] = path
            _put(found, key, path)


def files_in_directory(environ: Mapping[str, str]) -> list[Path]:
    """By name. Raises OSError."""
    given = environ.get(SECRETS_DIR)
    directory = DIRECTORY if given is None else Path(given)
    if given is None and not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def text_of(path: Path) -> str:
    """What a file of a setting says. Raises OSError or ValueError."""
    with path.open("rb") as file:
        data = file.read(FILE_MAX_BYTES + 1)
    if len(data) > FILE_MAX_BYTES:
        raise ValueError(f"it has more than {FILE_MAX_BYTES} bytes")
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None


def _put(found: Found, key: str, path: Path) -> None:
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        found.blame(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}", key)
        return
    if text:
        found.put_text(key, text, str(path))
    else:
        found.blame(f"{path}: is empty: give {key} a value, or drop the file", key)


def _key_of(name: str) -> str:
    is_variable = name.startswith(PREFIX) or ("__" in name and "." not in name)
    return key_of_variable(name) if is_variable else name
