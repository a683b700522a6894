"""Makes what others read of what we write: Grafana's dashboards, the Prometheus operator's rules.

`make panels` writes them (decision 0031). The same source makes the same text, to the byte.
"""

import json
from pathlib import Path

import yaml

from tests.observed.shipped import BOARDS, OPERATOR_RULES, RULES, Doc, source

SCHEMA = 39  # of dashboards; newer Grafanas bring it up to theirs as they load it
WIDTH = 24
_STAT_HEIGHT, _GRAPH_HEIGHT = 4, 8
_DATA = {"type": "prometheus", "uid": "${datasource}"}


def made() -> dict[Path, str]:
    """The text of each file."""
    files = {BOARDS / f"{board['uid']}.json": _text(_board(board)) for board in source()}
    return {**files, OPERATOR_RULES: _operator_rules()}


def _board(drawn: Doc) -> Doc:
    variables = [_variable("datasource"), _variable("job")]
    if drawn.get("queues"):
        variables.append(_variable("queue"))
    return {
        "uid": drawn["uid"],
        "title": drawn["title"],
        "description": drawn["about"],
        "tags": ["penstock"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "panels": _laid_out(drawn["rows"]),
    }


def _variable(name: str) -> Doc:
    if name == "datasource":
        return {"name": name, "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    asked = {"job": "penstock_build_info", "queue": 'penstock_queue_depth{job="$job"}'}[name]
    query = f"label_values({asked}, {name})"
    variable = {"name": name, "type": "query", "datasource": _DATA, "refresh": 2, "sort": 1}
    variable["query"] = {"query": query, "refId": name}
    if name == "queue":
        variable |= {"includeAll": True, "multi": True, "allValue": ".*"}
    return variable


def _laid_out(rows: list[Doc]) -> list[Doc]:
    """Row by row, from left to right: six numbers or three graphs beside one another."""
    laid: list[Doc] = []
    y = 0
    for row in rows:
        laid.append({"type": "row", "title": row["title"], **_place(laid, 0, y, WIDTH, 1)})
        y += 1
        for sort, height, columns in (("stats", _STAT_HEIGHT, 6), ("panels", _GRAPH_HEIGHT, 3)):
            width = WIDTH // columns
            for number, panel in enumerate(row.get(sort, [])):
                x, down = number % columns * width, number // columns * height
                shown = _stat(panel) if sort == "stats" else _graph(panel)
                laid.append({**shown, **_place(laid, x, y + down, width, height)})
            y += -(-len(row.get(sort, [])) // columns) * height
    return laid


def _place(before: list[Doc], x: int, y: int, width: int, height: int) -> Doc:
    return {"id": len(before) + 1, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _stat(panel: Doc) -> Doc:
    return {
        "type": "stat",
        **_shown(panel, [{"expr": panel["expr"], "legend": panel["title"]}]),
        "fieldConfig": {"defaults": {"unit": panel["unit"]}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"},
    }


def _graph(panel: Doc) -> Doc:
    custom = {"fillOpacity": 10, "showPoints": "never"}
    defaults = {"unit": panel["unit"], "custom": custom}
    if not panel.get("signed"):
        defaults["min"] = 0
    return {
        "type": "timeseries",
        **_shown(panel, panel["queries"]),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _shown(panel: Doc, queries: list[Doc]) -> Doc:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _DATA,
            "expr": query["expr"],
            "legendFormat": query["legend"],
        }
        for number, query in enumerate(queries)
    ]
    about = {"title": panel["title"], "description": panel["about"]}
    return {**about, "datasource": _DATA, "targets": targets}


def _text(board: Doc) -> str:
    """A line a panel, so that a change shows which one it is of."""
    panels = ",\n".join(json.dumps(panel) for panel in board["panels"])
    head = json.dumps({**board, "panels": []}, indent=1)
    return head.replace('"panels": []', f'"panels": [\n{panels}\n ]') + "\n"


def _operator_rules() -> str:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "penstock"},
        "spec": {"groups": groups},
    }
    head = "# Made of config/prometheus/recording.yml and alerts.yml by `make panels`.\n"
    return head + yaml.safe_dump(manifest, sort_keys=False, width=1000, allow_unicode=True)
