"""The Dockerfile and what goes into an image. (Building it is ci.yml's, where Docker is.)"""

import asyncio
import fnmatch
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from penstock.server import Replica
from tests.ship.reading import DOCKERFILE, PINNED, health_check
from tests.support.ports import free_port
from tests.test_tidy import ROOT

LOCKED = re.compile(r"^([a-z0-9._-]+)==(\S+)", re.MULTILINE)


def locked(name: str) -> dict[str, str]:
    return dict(LOCKED.findall((ROOT / "config" / name).read_text()))


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    if not program.exists():
        pytest.skip("hadolint has no wheel for this machine")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_is_built_and_run_on_one_pinned_base_and_not_by_root() -> None:
    text = DOCKERFILE.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert PINNED.fullmatch(bases[0])
    last = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (\S+)", last, re.MULTILINE) == ["10001:10001"]
    assert re.search(r'^ENTRYPOINT \["penstock"\]$', last, re.MULTILINE)
    assert "apt-get" not in text


def test_the_image_holds_what_pyproject_demands_and_no_tool() -> None:
    whole, runtime, build = (
        locked(f"{name}.lock") for name in ("requirements", "runtime", "build")
    )
    assert runtime.items() <= whole.items()
    assert build.items() <= whole.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    named = {
        re.split(r"[^A-Za-z0-9._-]", one)[0].lower() for one in project["dependencies"] + extras
    }
    assert named <= runtime.keys(), "run make lock"
    assert not {"pytest", "mypy", "ruff", "pip", "hatchling", "setuptools"} & runtime.keys()


def test_everything_that_is_copied_is_sent() -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    assert "*" in rules
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    text = DOCKERFILE.read_text()
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert len(copied) >= 8
    for name in copied:
        sent = [rule for rule in kept if fnmatch.fnmatch(name, rule) or rule.startswith(f"{name}/")]
        assert sent, f"{name} is copied, but .dockerignore doesn't let it through"
        assert (ROOT / name).exists()
    for name in (".env", ".git", ".penstock", "config/kubernetes"):
        assert not any(fnmatch.fnmatch(name, rule) for rule in kept), name


async def test_the_health_check_says_whether_the_replica_is_ready(replica: Replica) -> None:
    port = replica.url.rpartition(":")[2]
    assert await asyncio.to_thread(_asked, port) == 0
    assert await asyncio.to_thread(_asked, str(free_port())) == 1


def _asked(port: str) -> int:
    environ = {"PATH": os.environ["PATH"], "PENSTOCK_HTTP__PORT": port}
    return subprocess.run(health_check(), env=environ, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (made,) = place.glob("penstock-*.whl")
    return made


def test_the_wheel_holds_migrations_and_settings_but_no_manifests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if "/_shipped/" in name}
    shipped = {name.partition("/_shipped/")[2] for name in names}
    migrations = {f"migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}
    assert shipped == {"config/base.yaml", "config/development.yaml", *migrations}


def test_the_start_of_the_container_works_outside_of_one(
    wheel: Path, tmp_path: Path, dsn: str, redis_url: str
) -> None:
    """The wheel alone, beside a checkout that it must not look into: migrate, as the job does."""
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(place),
        "PENSTOCK_ENV": "development",
        "PENSTOCK_POSTGRES__DSN": dsn,
        "PENSTOCK_REDIS__URL": redis_url,
        "PENSTOCK_AUTH__JWT_SECRET": "x" * 40,
    }
    outside = "import sys; sys.path[:] = [p for p in sys.path if not p.endswith('/app')]; "
    start = outside + "from penstock import places; assert '_shipped' in str(places.config_dir()); "
    start += "from penstock.__main__ import main; main()"
    for words in (["migrate", "--check"], ["config", "check"]):
        command = [sys.executable, "-c", start, *words]
        done = subprocess.run(
            command, env=environ, cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
