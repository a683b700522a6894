"""What lies in config/prometheus and config/grafana, as tests and `make panels` see it."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.test_tidy import ROOT

PROMETHEUS = ROOT / "config" / "prometheus"
RULES = (PROMETHEUS / "recording.yml", PROMETHEUS / "alerts.yml")
SOURCE = ROOT / "config" / "grafana" / "dashboards.yaml"
BOARDS = ROOT / "config" / "grafana" / "dashboards"
OPERATOR_RULES = ROOT / "config" / "kubernetes" / "components" / "monitoring" / "rules.yaml"
RUNBOOKS = "app/docs/runbooks.md"

Doc = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One question of a panel, `place` says which."""

    place: str
    expr: str
    legend: str


@cache
def rules() -> list[Doc]:
    """Those that record, then those that alert."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, Doc]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> dict[str, str]:
    """The expression of each."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


@cache
def boards() -> dict[str, Doc]:
    """The dashboards by uid, as Grafana reads them."""
    found = [json.loads(path.read_text()) for path in sorted(BOARDS.glob("*.json"))]
    return {board["uid"]: board for board in found}


def panels(board: Doc) -> list[Doc]:
    """Those that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(uid: str) -> list[Query]:
    """Those of a dashboard."""
    return [
        Query(f"{uid}: {panel['title']}", target["expr"], target["legendFormat"])
        for panel in panels(boards()[uid])
        for target in panel["targets"]
    ]


def filled(expr: str, window: str = "5m") -> str:
    """A panel's expression with Grafana's variables replaced, as Prometheus gets it."""
    for name, value in (("$__rate_interval", window), ("$job", "penstock"), ("$queue", ".*")):
        expr = expr.replace(name, value)
    return expr


def source(path: Path = SOURCE) -> list[Doc]:
    tree: list[Doc] = yaml.safe_load(path.read_text())
    return tree
