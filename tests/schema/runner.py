"""Runs schemathesis on a server, and reads what it found."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.support.api import token

HERE = Path(__file__).parent
PHASES = "examples,coverage,fuzzing,stateful"


@dataclass(frozen=True, slots=True)
class Found:
    """`cases` were sent; `text` is what schemathesis printed."""

    passed: bool
    cases: int
    report: dict[str, Any]
    text: str


def examined(url: str, directory: Path, *, max_examples: int, seed: int) -> Found:
    """Holds the server at `url` against its own document, with every check in every phase."""
    report = directory / "schemathesis.json"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(HERE / "schemathesis.toml")),
            *("run", f"{url}/openapi.json", "--no-color"),
            *("--header", f"Authorization: Bearer {token(sub='schemathesis')}"),
            *("--checks", "all", "--phases", PHASES, "--mode", "all"),
            *("--max-examples", str(max_examples), "--seed", str(seed)),
            *("--continue-on-failure", "--request-timeout", "10"),
            *("--generation-database", "none"),
            *("--report", "json", "--report-json-path", str(report)),
        ],
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py")},
        capture_output=True,
        text=True,
        check=False,
    )
    text = run.stdout + run.stderr
    if not report.exists():
        return Found(False, 0, {}, text)
    told = orjson.loads(report.read_bytes())
    passed = run.returncode == 0 and told["complete"] and not told["failures"]
    return Found(passed, told["test_cases"]["generated"], told, text)
