"""compose.yaml: its shape, its manners, and that its variables are settings."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ship.reading import COMPOSE, PINNED, compose, compose_variables, settings_of
from tests.test_tidy import ROOT

SERVICES = sorted(compose()["services"])
OURS = [name for name in SERVICES if compose()["services"][name]["image"] == "penstock:dev"]
ONCE = {"keys", "migrate"}
NEEDED = {"PENSTOCK_POSTGRES__DSN": "postgres://a@b/c", "PENSTOCK_REDIS__URL": "redis://r"}


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def test_it_has_the_shape_that_compose_wants() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_few_rights_and_limits(name: str) -> None:
    one = service(name)
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["restart"] == ("on-failure" if name in ONCE else "unless-stopped")
    assert {"cpus", "memory", "pids"} == one["deploy"]["resources"]["limits"].keys()
    assert "privileged" not in one
    for port in one.get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_ours_or_pinned(name: str) -> None:
    image = service(name)["image"]
    assert image == "penstock:dev" or PINNED.fullmatch(image), image


@pytest.mark.parametrize("name", SERVICES)
def test_docker_can_tell_whether_it_works(name: str) -> None:
    check = service(name).get("healthcheck", {})
    if name in ONCE:  # others wait for their end
        assert check == {"disable": True}
    elif name in OURS and name != "dlq-consumer":  # the image has one
        assert check == {}
    else:  # without one that isn't just switched off, `up --wait` fails
        assert check["test"][0] == "CMD"


@pytest.mark.parametrize("name", OURS)
def test_our_variables_are_settings(name: str, tmp_path: Path) -> None:
    one = service(name)
    assert one["read_only"] is True
    environ = dict(one["environment"])
    made = {"auth.jwt_secret": "x" * 40, "webhook.secrets": json.dumps(["whsec_" + "A" * 40])}
    development = (ROOT / "config" / "development.yaml").read_text()
    settings = settings_of(tmp_path, environ, made, {"development.yaml": development})
    assert settings.broker == "kafka"
    assert bool(settings.alerts.rules) == (name == "dlq-consumer")


def test_the_secrets_that_are_made_are_good_ones_and_stay(tmp_path: Path) -> None:
    (script,) = service("keys")["command"]
    place = tmp_path / "made"
    place.mkdir()
    script = script.replace("/run/secrets/penstock", str(place))
    made = [_made(script, place) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].keys() == {"auth.jwt_secret", "webhook.secrets"}
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    assert len(settings_of(tmp_path, NEEDED, made[0], {}).webhook.secrets) == 1


def _made(script: str, place: Path) -> dict[str, str]:
    subprocess.run([sys.executable, "-I", "-c", script], check=True)
    return {path.name: path.read_text() for path in place.iterdir()}


def test_every_role_runs_in_the_profile_split() -> None:
    split = {name for name in OURS if service(name).get("profiles") == ["split"]}
    commands = [service(name)["command"] for name in split]
    roles = {command[2] for command in commands if command[0] == "serve"}
    assert roles == {"api", "scheduler", "worker", "relay"}
    assert ["dlq-consumer"] in commands
    assert "server" in service("api")["networks"]["default"]["aliases"], "the proxy looks for it"


def test_prometheus_finds_every_replica() -> None:
    scrape = yaml.safe_load((ROOT / "config" / "prometheus" / "prometheus.yml").read_text())
    (name,) = scrape["scrape_configs"][0]["dns_sd_configs"][0]["names"]
    serving = [one for one in OURS if service(one).get("command", ["serve"])[0] == "serve"]
    assert len(serving) == 5
    for one in serving:
        assert name in service(one)["networks"]["default"]["aliases"], one


def test_the_example_names_what_may_be_set_and_nothing_else(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = [line.lstrip("#").split("=", 1) for line in lines if "=" in line and " =" not in line]
    example = {name: value for name, value in pairs if name.isidentifier()}
    variables = compose_variables()
    assert variables.keys() - {"PENSTOCK_ENV"} <= example.keys()
    for name, value in example.items():
        if name in variables:
            assert value == variables[name], f"{name}: compose.yaml has another default"
        else:
            assert name.startswith("PENSTOCK_"), f"{name} is taken by nobody"
    # The file goes to the containers as well: what only compose takes mustn't look like a setting.
    ours = {name: value for name, value in example.items() if name.startswith("PENSTOCK_")}
    secret = {"auth.jwt_secret": "x" * 40}
    assert settings_of(tmp_path, {**NEEDED, **ours}, secret, {}).env == "production"


def test_what_is_mounted_from_here_is_here() -> None:
    for name in SERVICES:
        for volume in service(name).get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_dir(), f"{name} mounts {source}"
            else:
                assert source in compose()["volumes"]
