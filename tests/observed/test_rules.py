"""The rules: their words, what they ask for, and Prometheus' own opinion of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from penstock.api.routes import ROUTES, Table
from penstock.telemetry.metrics import Metrics
from tests.observed.asking import known, labels
from tests.observed.shipped import (
    OPERATOR_RULES,
    PROMETHEUS,
    RUNBOOKS,
    alerts,
    records,
    rules,
)
from tests.support.prometheus import PROMTOOL, needs_prometheus
from tests.test_tidy import ROOT, SOURCES

ALERTS = sorted(alerts())
FUNCTIONS = {"humanize", "humanizeDuration", "humanizePercentage"}
_TEMPLATE = re.compile(r"\{\{(.*?)\}\}")


def test_a_record_is_named_by_its_labels() -> None:
    for name in records():
        kept = frozenset(name.split(":")[0].split("_"))
        assert kept == known()[name], name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_what_there_is_and_says_all(name: str) -> None:
    alert = alerts()[name]
    given = labels(alert["expr"], known())
    assert "job" in given, "else installations are told as one"
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    said = alert["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert all(said[part].endswith(".") for part in ("summary", "description"))
    for found in _TEMPLATE.findall(said["summary"] + said["description"]):
        value, *functions = (word.strip() for word in found.split("|"))
        assert value == "$value" or value.removeprefix("$labels.") in given, found
        assert set(functions) <= FUNCTIONS, found


def test_each_alert_has_its_section_in_the_runbooks_and_no_other_has() -> None:
    text = (ROOT / RUNBOOKS).read_text()
    sections = dict(re.findall(r"^### (\w+)\n+((?:(?!#).*\n)+)", text, re.MULTILINE))
    assert sorted(sections) == ALERTS
    for name, said in sections.items():
        assert alerts()[name]["annotations"]["runbook_url"] == f"{RUNBOOKS}#{name.lower()}"
        assert "**Look at**" in said, name
        assert "**Do**" in said, name


def test_the_runbooks_name_calls_and_log_lines_that_there_are() -> None:
    text = (ROOT / RUNBOOKS).read_text()
    table = Table(ROUTES)
    for path, words in re.findall(r"`api '?(/v1/[^ '`]+)'?([^`]*)`", text):
        method = re.search(r"-X (\w+)", words)
        way = method[1] if method else "POST" if "-d " in words else "GET"
        table.find(way, path.split("?")[0])  # raises what a caller would hear
    sources = "".join(path.read_text() for path in SOURCES)
    lines = re.findall(r"log (?:line |for |of the replicas for )`(\w+)`", text)
    assert len(lines) >= 7
    for line in lines:
        assert f'"{line}"' in sources, line


def test_each_alert_has_a_story_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    """The stories themselves are promtool's."""
    stories = yaml.safe_load((PROMETHEUS / "tests.yml").read_text())["tests"]
    fires, quiet = set[str](), set[str]()
    for story in stories:
        name, what = re.match(r"(\w+) (fires|stays quiet)", story["name"]).groups()  # type: ignore[union-attr]
        asked = story["promql_expr_test"]
        assert all(f'alertname="{name}"' in one["expr"] for one in asked), story["name"]
        assert bool(asked[-1].get("exp_samples")) == (what == "fires"), story["name"]
        (fires if what == "fires" else quiet).add(name)
    assert sorted(fires) == sorted(quiet) == ALERTS


def test_the_operator_gets_the_same_rules() -> None:
    groups = yaml.safe_load(OPERATOR_RULES.read_text())["spec"]["groups"]
    assert [rule for group in groups for rule in group["rules"]] == rules()


def test_the_inhibitions_of_the_example_name_alerts_that_there_are() -> None:
    example = yaml.safe_load((PROMETHEUS / "alertmanager.example.yml").read_text())
    for rule in example["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            wanted = re.fullmatch(r'alertname(?:=~?|!=)"(.+)"', matcher)
            assert wanted, matcher
            found = [name for name in ALERTS if re.fullmatch(wanted[1], name)]
            assert len(found) >= 1 + wanted[1].count("|"), matcher
            assert all(
                set(rule["equal"]) <= labels(alerts()[one]["expr"], known()) for one in found
            )


def test_what_wakes_somebody_is_kept_back_by_nothing_less() -> None:
    example = yaml.safe_load((PROMETHEUS / "alertmanager.example.yml").read_text())
    for rule in example["inhibit_rules"]:
        (source,) = rule["source_matchers"]
        if alerts()[source.split('"')[1]]["labels"]["severity"] == "critical":
            continue
        for matcher in rule["target_matchers"]:
            kept = [name for name in ALERTS if re.fullmatch(matcher.split('"')[1], name)]
            assert {alerts()[name]["labels"]["severity"] for name in kept} == {"warning"}, matcher


@needs_prometheus
@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "config", "plain.yml"),
        ("check", "rules", "recording.yml", "alerts.yml"),
        ("test", "rules", "tests.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    _passes([PROMTOOL, *words], PROMETHEUS)


@needs_prometheus
def test_promtool_finds_nothing_wrong_with_what_we_export() -> None:
    """Names, units, helps: its lint of all that a replica tells."""
    text, _ = Metrics().exposition()
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool (prometheus-alertmanager)")
def test_alertmanager_takes_the_example() -> None:
    _passes(["amtool", "check-config", "alertmanager.example.yml"], PROMETHEUS)


def _passes(command: list[str], where: Path) -> None:
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
