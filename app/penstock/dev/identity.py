"""As whom PostgreSQL runs, since it refuses to be root.

As an ordinary user: as that user. As root: as `nobody` in a user namespace, where files stay
root's; where namespaces are forbidden (a container): as the real `nobody`, who gets the data
directory and, if need be, a copy of the programs.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from penstock.dev.find import EmbeddedError

NOBODY = 65534
UNSHARE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
UNSHARE_TIMEOUT_S = 10


@dataclass(frozen=True)
class Identity:
    """How to start PostgreSQL's programs; `uid` and `gid` are -1 to stay who we are."""

    bin: Path
    prefix: tuple[str, ...] = ()
    uid: int = -1
    gid: int = -1


def server_identity(programs: Path, directory: Path) -> Identity:
    """Who runs the programs in `programs` on data below `directory`."""
    if os.geteuid() != 0:
        return Identity(programs)
    if _namespaces_work():
        return Identity(programs, prefix=UNSHARE)
    return _as_nobody(programs, directory)


def own(path: Path, identity: Identity) -> None:
    """Gives a data directory to whom the server runs as; an earlier start may have differed."""
    uid = os.geteuid() if identity.uid < 0 else identity.uid
    gid = os.getegid() if identity.gid < 0 else identity.gid
    if os.geteuid() != 0 or path.stat().st_uid == uid:
        return
    os.chown(path, uid, gid)
    for root, directories, files in os.walk(path):
        for name in (*directories, *files):
            os.chown(Path(root, name), uid, gid, follow_symlinks=False)


def _namespaces_work() -> bool:
    try:
        done = subprocess.run(
            [*UNSHARE, "true"], capture_output=True, timeout=UNSHARE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _as_nobody(programs: Path, directory: Path) -> Identity:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL refuses to run as root, and there is no user `nobody` here: "
            "run as an ordinary user, or set PENSTOCK_POSTGRES__DSN"
        ) from None
    directory.chmod(0o711)
    if not _open_to_all(directory):
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and the user `nobody` can't reach {directory}: "
            "run as an ordinary user, or choose another directory with PENSTOCK_DEV__DIR"
        )
    if not _open_to_all(programs):
        programs = _copied(programs, directory)
    return Identity(programs, uid=nobody.pw_uid, gid=nobody.pw_gid)


def _open_to_all(path: Path) -> bool:
    real = path.resolve()
    return all(place.stat().st_mode & 0o001 for place in (real, *real.parents))


def _copied(programs: Path, directory: Path) -> Path:
    """Copies a wheel's programs to where `nobody` can run them, with their libraries beside."""
    package = programs.parent.parent  # <package>/pginstall/bin
    copy = directory / "programs"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(mode=0o755)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, copy / part.name)
    return copy / programs.relative_to(package.parent)
