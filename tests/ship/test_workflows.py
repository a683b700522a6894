"""The workflows: their shape, what a security linter says of them, pins, rights, time limits."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.ship.reading import PINNED, WORKFLOWS, compose, workflow
from tests.test_tidy import ROOT

PINNED_ACTION = re.compile(r"uses: [a-z0-9./-]+/[a-z0-9./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
LOCAL = re.compile(r"uses: \./\.github/workflows/\w+\.yml\b")
JOBS = [(path, name) for path in WORKFLOWS for name in workflow(path)["jobs"]]


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", [str(path) for path in WORKFLOWS]),
        ("vendor.dependabot", [str(ROOT / ".github" / "dependabot.yml")]),
    ],
)
def test_they_have_the_shape_that_github_wants(schema: str, paths: list[str]) -> None:
    done = ran(sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *paths)
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing() -> None:
    program = str(Path(sys.executable).parent / "zizmor")
    done = ran(program, "--offline", "--no-progress", "--persona", "pedantic", ".github")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_with_their_version_beside(path: Path) -> None:
    uses = re.findall(r"uses: .*", path.read_text())
    assert uses
    for line in uses:
        assert PINNED_ACTION.fullmatch(line) or LOCAL.match(line), line


def test_one_action_is_one_version_everywhere() -> None:
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    pins: dict[str, set[str]] = {}
    for name, rest in re.findall(r"uses: ([a-z0-9./-]+)@(.*)", text):
        pins.setdefault(name, set()).add(rest)
    assert {name: found for name, found in pins.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_is_allowed_but_what_a_job_asks_for(path: Path) -> None:
    assert workflow(path)["permissions"] == {}
    assert "pull_request_target" not in path.read_text()


@pytest.mark.parametrize(("path", "name"), JOBS, ids=lambda part: getattr(part, "stem", part))
def test_a_job_says_its_rights_and_ends_in_time(path: Path, name: str) -> None:
    job = workflow(path)["jobs"][name]
    assert job["permissions"]
    if "uses" not in job:
        assert 0 < job["timeout-minutes"] <= 180
    for step in job.get("steps", []):
        if str(step.get("uses", "")).startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize(("path", "name"), JOBS, ids=lambda part: getattr(part, "stem", part))
def test_scripts_are_whole_and_take_nothing_from_outside_by_text(path: Path, name: str) -> None:
    for step in workflow(path)["jobs"][name].get("steps", []):
        script = step.get("run", "")
        assert "${{" not in script, "give it by env"
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("heading", "notes"),
    [
        ("1.2.3 (2026-12-01)", "- [ours](https://github.com/us/ours/blob/v1.2.3/app/docs/a.md)\n"),
        ("1.2.3 (unreleased)", None),
        ("1.2.30 (2026-12-01)", None),
    ],
)
def test_a_release_takes_its_own_section_of_the_changelog(
    heading: str, notes: str | None, tmp_path: Path
) -> None:
    steps = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["package"]["steps"]
    (script,) = [step["run"] for step in steps if "changelog" in step.get("name", "")]
    (tmp_path / "pyproject.toml").write_text('version = "1.2.3"\n')
    text = f"# Changelog\n\n## {heading}\n- [ours](app/docs/a.md)\n## 1.2.2 (2026-11-01)\n- older\n"
    (tmp_path / "CHANGELOG.md").write_text(text)
    environ = {**os.environ, "GITHUB_REF_NAME": "v1.2.3", "GITHUB_REPOSITORY": "us/ours"}
    done = subprocess.run(["bash", "-e", "-c", script], env=environ, cwd=tmp_path, check=False)
    assert (done.returncode == 0) == (notes is not None)
    assert notes is None or (tmp_path / "notes.md").read_text() == notes


def test_every_python_that_we_support_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = [name.split(" :: ")[-1] for name in project["classifiers"] if ":: Python ::" in name]
    job = ci()["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ours


def test_services_of_ci_are_those_of_compose_or_pinned_too() -> None:
    images = [
        leg[name]
        for leg in ci()["jobs"]["engines"]["strategy"]["matrix"]["include"]
        for name in ("postgres", "redis")
    ]
    assert all(PINNED.fullmatch(image) for image in images)
    services = compose()["services"]
    assert {services["postgres"]["image"], services["redis"]["image"]} <= set(images)


def ci() -> dict[str, Any]:
    return workflow(ROOT / ".github" / "workflows" / "ci.yml")
