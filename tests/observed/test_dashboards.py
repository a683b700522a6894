"""The dashboards: made of their source, in Grafana's shape, and asking for what there is."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.observed.asking import known, labels
from tests.observed.drawing import WIDTH, made
from tests.observed.shipped import BOARDS, Doc, boards, filled, panels, queries, rules
from tests.test_tidy import ROOT

UNITS = {"short", "ops", "reqps", "s", "percentunit", "bytes"}
UIDS = sorted(boards())
_LEGEND = re.compile(r"\{\{(\w+)\}\}")


def test_what_is_there_is_what_is_made_and_nothing_else() -> None:
    texts = made()
    for path, text in texts.items():
        assert path.read_text() == text, f"{path.name} isn't made of its source: make panels"
    assert set(BOARDS.glob("*")) <= texts.keys()


@pytest.mark.parametrize("uid", UIDS)
def test_grafana_knows_every_key(uid: str) -> None:
    """Read into Grafana's own model and written again: what it doesn't know is lost."""
    board = boards()[uid]
    again = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))
    lost = [path for path, value in _leaves(board) if _at(again, path) != value]
    assert not lost


def _leaves(
    tree: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    match tree:
        case dict():
            for key, value in tree.items():
                yield from _leaves(value, (*path, key))
        case list():
            for key, value in enumerate(tree):
                yield from _leaves(value, (*path, key))
        case _:
            yield path, tree


def _at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


@pytest.mark.parametrize("uid", UIDS)
def test_panels_have_ids_and_places_of_their_own(uid: str) -> None:
    board = boards()[uid]
    ids = [panel["id"] for panel in board["panels"]]
    assert ids == sorted(set(ids))
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        xs = range(place["x"], place["x"] + place["w"])
        cells = set(itertools.product(xs, range(place["y"], place["y"] + place["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("uid", UIDS)
def test_a_panel_says_what_it_shows_in_which_unit_and_from_where(uid: str) -> None:
    board = boards()[uid]
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels(board):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            asked = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert "job" in asked, "else installations are shown as one"
            assert asked <= variables.keys(), panel["title"]


@pytest.mark.parametrize("uid", UIDS)
def test_queries_ask_for_metrics_and_labels_that_there_are(uid: str) -> None:
    for query in queries(uid):
        given = labels(filled(query.expr), known()) - {"job"}
        shown = set(_LEGEND.findall(query.legend))
        assert query.legend, query
        assert shown == given, f"{query.place}: the legend shows {shown}, of {given}"


def test_variables_ask_for_what_there_is() -> None:
    for board in boards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert asked
                assert asked[2] in labels(filled(asked[1]), known())


def test_every_record_is_shown_or_alerted_on() -> None:
    asked = " ".join(
        [query.expr for uid in UIDS for query in queries(uid)] + [rule["expr"] for rule in rules()]
    )
    for rule in rules():
        assert "record" not in rule or rule["record"] in asked


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = ROOT / "config" / "grafana" / "provisioning"
    (source,) = _read(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    scrape = _read(ROOT / "config" / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape, "of which $__rate_interval is made"
    mounted = _read(ROOT / "compose.yaml")["services"]["grafana"]["volumes"]
    (provider,) = _read(provisioning / "dashboards" / "penstock.yaml")["providers"]
    assert f"./config/grafana/dashboards:{provider['options']['path']}:ro" in mounted


def _read(path: Any) -> Doc:
    found: Doc = yaml.safe_load(path.read_text())
    return found
