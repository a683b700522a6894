"""`<dev.dir>/env`: what another shell needs to work with the servers of a running `penstock dev`.

In: the settings' variables as `dev` completed them. Out: a file for `. .penstock/env`, readable by
its owner only, there while `dev` runs. If we die here, it stays and the next run writes it anew.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_SECRETS = (
    *("PENSTOCK_POSTGRES__DSN", "PENSTOCK_REDIS__URL"),
    *("PENSTOCK_AUTH__JWT_SECRET", "PENSTOCK_WEBHOOK__SECRETS"),
)


@contextmanager
def exported(environ: Mapping[str, str], directory: Path) -> Iterator[None]:
    """Keeps the file there, and takes it away if it is still ours."""
    path, text = directory / "env", _text(environ, directory)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
    try:
        yield
    finally:
        if path.is_file() and path.read_text() == text:
            path.unlink()


def _text(environ: Mapping[str, str], directory: Path) -> str:
    lines = [
        "# Of the `penstock dev` that runs now: . this file, and other commands use its servers."
    ]
    lines += _line("PENSTOCK_ENV", environ["PENSTOCK_ENV"])
    lines += _line("PENSTOCK_DEV__DIR", str(directory))
    for name in _SECRETS:
        of_file = f"{name}_FILE"
        if name in environ:
            lines += [f"unset {of_file}", *_line(name, environ[name])]
        elif of_file in environ:
            lines += [f"unset {name}", *_line(of_file, str(Path(environ[of_file]).absolute()))]
    # dev itself has its port: a second server takes any free one, if nothing else is said.
    lines.append('export PENSTOCK_HTTP__PORT="${PENSTOCK_HTTP__PORT:-0}"')
    return "\n".join(lines) + "\n"


def _line(name: str, value: str) -> list[str]:
    return [f"export {name}={shlex.quote(value)}"]
