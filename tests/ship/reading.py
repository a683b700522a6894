"""What lies in the files that ship, as the tests want to see it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from penstock.settings import load
from tests.test_tidy import ROOT

COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
MANIFESTS = ROOT / "config" / "kubernetes"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

PINNED = re.compile(r"[a-z0-9./-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

Doc = dict[str, Any]


@cache
def compose() -> Doc:
    """compose.yaml, its variables replaced by their defaults."""
    text = _VARIABLE.sub(lambda found: found[2] or "", COMPOSE.read_text())
    tree: Doc = yaml.safe_load(text)
    return tree


def compose_variables() -> dict[str, str]:
    """What may be set from outside, with its default."""
    return dict(_VARIABLE.findall(COMPOSE.read_text()))


def workflow(path: Path) -> Doc:
    tree: Doc = yaml.safe_load(path.read_text())
    return tree


def render(overlay: Path, place: Path) -> list[Doc]:
    """What `kubectl apply -k` would send; `place` is where secrets are made for it."""
    copied = place / "kubernetes"
    if not copied.exists():
        shutil.copytree(MANIFESTS, copied)
    there = copied / overlay
    if (there / "kustomization.yaml").read_text().count("secrets.env"):
        script = ["sh", str(copied / "overlays" / "secrets.sh")]
        made = subprocess.run(script, capture_output=True, text=True, check=True)
        (there / "secrets.env").write_text(made.stdout)
    command = ["kubectl", "kustomize", str(there)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.safe_load_all(done.stdout) if doc]


def pod_specs(docs: list[Doc]) -> Iterator[tuple[str, Doc]]:
    """(name, pod) of each workload."""
    for doc in docs:
        template = doc.get("spec", {}).get("template")
        if doc["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield f"{doc['kind']}/{doc['metadata']['name']}", template["spec"]


def demand_settings(environ: Mapping[str, str], files: Mapping[str, str], place: Path) -> None:
    """Loads settings as a container would: of these variables, whose files lie in `place`."""
    config = place / "settings"
    config.mkdir(exist_ok=True)
    for name, text in files.items():
        (config / name).write_text(text)
    load(environ, config)


def health_check() -> list[str]:
    """The command of the Dockerfile's HEALTHCHECK, to be run by our Python."""
    (command,) = re.findall(r"^ +CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    program, *words = json.loads(command)
    assert program == "python"
    return [sys.executable, *words]
