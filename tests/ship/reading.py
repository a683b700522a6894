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

from penstock.settings import Settings, load
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
        shutil.copytree(MANIFESTS, copied, ignore=shutil.ignore_patterns("*.env"))
    there = copied / overlay
    if "secretGenerator" in (there / "kustomization.yaml").read_text():
        script = ["sh", str(copied / "overlays" / "secrets.sh"), overlay.name]
        subprocess.run(script, check=True)
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


def settings_of(
    place: Path, environ: Mapping[str, str], secrets: Mapping[str, str], files: Mapping[str, str]
) -> Settings:
    """Settings as a container would load them; its mounts are made below `place`."""
    mounted = {"secrets": secrets, "settings": files}
    for name, texts in mounted.items():
        (place / name).mkdir()
        for file, text in texts.items():
            (place / name / file).write_text(text)
    where = {"PENSTOCK_SECRETS_DIR": place / "secrets", "PENSTOCK_CONFIG_DIR": place / "settings"}
    return load({**environ, **{name: str(path) for name, path in where.items()}})


def health_check() -> list[str]:
    """The command of the Dockerfile's HEALTHCHECK, to be run by our Python."""
    (command,) = re.findall(r"^ +CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    program, *words = json.loads(command)
    assert program == "python"
    return [sys.executable, *words]
