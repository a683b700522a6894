"""The commands, as a user runs them."""

import json
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import jwt
import pytest

from penstock import VERSION
from tests.cli.command import (
    COMMAND_TIMEOUT_S,
    SECRET,
    Running,
    Servers,
    penstock,
    running,
    the_last_line,
    the_one_line,
)

KEPT = {"jwt_secret", "webhook_secrets"}


def test_the_version_and_the_help_go_to_stdout() -> None:
    assert penstock("--version").stdout == f"penstock {VERSION}\n"
    told = penstock("--help").stdout
    for command in ("serve", "dev", "migrate", "token", "config", "dlq-consumer"):
        assert command in told


GIVEN = {
    "PENSTOCK_POSTGRES__DSN": "postgres://127.0.0.1",
    "PENSTOCK_REDIS__URL": "redis://127.0.0.1",
    "PENSTOCK_AUTH__JWT_SECRET": SECRET,
}


def test_a_wrong_word_is_wrong_use() -> None:
    assert penstock("sevre").returncode == 2
    assert penstock("serve", "--roles", "api,cook").returncode == 2


def test_a_wrong_setting_is_one_line_and_code_2() -> None:
    for command in (("serve",), ("migrate",), ("dev",), ("token",), ("config", "check")):
        done = penstock(*command, environ={**GIVEN, "PENSTOCK_HTTP__PROT": "1"})
        assert "did you mean PENSTOCK_HTTP__PORT?" in the_one_line(done, 2)


def test_a_token_is_all_that_is_on_stdout_and_says_what_was_asked() -> None:
    environ = {"PENSTOCK_AUTH__JWT_SECRET": SECRET, "PENSTOCK_AUTH__ISSUER": "us"}
    words = "--sub ci --role viewer --role operator --queue mail-* --ttl-s 60"
    done = penstock("token", *words.split(), environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"], issuer="us")
    assert claims.pop("exp") == claims.pop("iat") + 60
    assert claims == {
        "sub": "ci",
        "roles": ["viewer", "operator"],
        "queues": ["mail-*"],
        "iss": "us",
    }


def test_a_token_that_no_server_would_take_is_not_made() -> None:
    environ = {"PENSTOCK_AUTH__JWT_SECRET": SECRET, "PENSTOCK_AUTH__TOKEN_MAX_AGE_S": "60"}
    done = penstock("token", "--ttl-s", "61", environ=environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert "auth.token_max_age_s" in done.stderr
    assert penstock("token", "--role", "king", environ=environ).returncode == 2


def test_config_show_tells_value_and_source_and_no_secret(servers: Servers) -> None:
    done = penstock("config", "show", "-o", "json", environ=servers.environ)
    shown = {setting["key"]: setting for setting in json.loads(done.stdout)}
    assert shown["http.port"]["value"] == 0
    assert shown["http.port"]["source"] == "environment variable PENSTOCK_HTTP__PORT"
    assert shown["jobs.timeout_s"]["source"] == "default"

    table = penstock("config", "show", environ=servers.environ).stdout
    assert re.search(
        r"^http\.port +0 +environment variable PENSTOCK_HTTP__PORT", table, re.MULTILINE
    )
    for text in (done.stdout, table):
        assert SECRET not in text
        assert servers.environ["PENSTOCK_POSTGRES__DSN"] not in text


def test_config_check_is_silent_on_stdout_and_tells_all_that_lacks(servers: Servers) -> None:
    done = penstock("config", "check", environ=servers.environ)
    assert (done.returncode, done.stdout) == (0, "")

    done = penstock("config", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "3 settings are wrong" in done.stderr
    assert "Traceback" not in done.stderr


def test_migrate_needs_the_database_only_and_can_be_repeated(servers: Servers) -> None:
    environ = {"PENSTOCK_POSTGRES__DSN": servers.environ["PENSTOCK_POSTGRES__DSN"]}
    missing = penstock("migrate", "--check", environ=environ)
    assert missing.returncode == 1
    plan = penstock("migrate", "--plan", environ=environ)
    assert plan.returncode == 0
    assert [line for line in plan.stdout.splitlines() if line[0] != " "] == missing.stdout.split()
    assert "\n  locks: " in plan.stdout
    applied = penstock("migrate", environ=environ)
    assert (applied.returncode, applied.stdout) == (0, missing.stdout)
    assert applied.stdout.startswith("0001_")
    for words in (("migrate",), ("migrate", "--check")):
        again = penstock(*words, environ=environ)
        assert (again.returncode, again.stdout) == (0, "")
        assert "up to date" in again.stderr


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_out_of_reach_is_one_line_and_code_1(servers: Servers, command: str) -> None:
    environ = {
        **servers.environ,
        "PENSTOCK_POSTGRES__DSN": "postgres://penstock@127.0.0.1:1/x",
        "PENSTOCK_POSTGRES__BOOT_WAIT_S": "0",
    }
    done = penstock(command, environ=environ)
    assert "PostgreSQL" in the_last_line(done)


def test_a_port_in_use_is_told_with_the_way_out(servers: Servers) -> None:
    assert penstock("migrate", environ=servers.environ).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = penstock("serve", environ={**servers.environ, "PENSTOCK_HTTP__PORT": port})
    told = the_last_line(done)
    assert port in told
    assert "PENSTOCK_HTTP__PORT" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_it_is_and_ends_in_good_order(
    servers: Servers, number: signal.Signals
) -> None:
    assert penstock("migrate", environ=servers.environ).returncode == 0
    environ = {**servers.environ, "PENSTOCK_WORKER__DRAIN_GRACE_S": "1"}
    with running("serve", environ=environ, directory=servers.directory) as server:
        url = server.says(r"ready on (http://127\.0\.0\.1:\d+)")[1]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 5):
            pass
        assert server.ends(number) == 0


def copied_curl(command: Running) -> list[str]:
    """The curl of the banner, as a shell would read it."""
    command.says("Run a job")
    lines: list[str] = []
    while not lines or lines[-1].endswith("\\"):
        line = command.says(r"\S.*")[0]
        lines.append(line)
    return shlex.split(" ".join(line.removesuffix("\\") for line in lines))


def test_dev_runs_a_job_from_its_own_banner_and_finds_it_again(directory: Path) -> None:
    environ = {"PENSTOCK_HTTP__PORT": "0"}
    with running("dev", environ=environ, directory=directory) as first:
        job = json.loads(curl(copied_curl(first)))
        assert job["state"] == "succeeded"
        assert job["result"] == {"hello": "world"}
        assert first.ends(signal.SIGINT) == 0

    secret = directory / ".penstock" / "jwt_secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    with running("dev", environ=environ, directory=directory) as second:
        words = copied_curl(second)
        url, bearer = words[words.index("-sS") + 1], words[words.index("-H") + 1]
        found = json.loads(curl(["curl", "-sS", f"{url}/{job['id']}", "-H", bearer]))
        assert found["result"] == {"hello": "world"}
        assert second.ends(signal.SIGTERM) == 0


def curl(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def test_a_second_dev_in_the_same_directory_is_told_so(directory: Path) -> None:
    environ = {"PENSTOCK_HTTP__PORT": "0"}
    with running("dev", environ=environ, directory=directory) as first:
        first.says("is ready on")
        with running("dev", environ=environ, directory=directory) as second:
            second.says(f"in use by process {first.process.pid}: .* PENSTOCK_DEV__DIR")
            assert second.process.wait(COMMAND_TIMEOUT_S) == 1
        assert first.ends(signal.SIGTERM) == 0


def test_dev_leaves_a_server_alone_that_it_is_given(servers: Servers, directory: Path) -> None:
    with running("dev", environ=servers.environ, directory=directory) as command:
        command.says("is ready on")
        assert command.ends(signal.SIGTERM) == 0
    assert {path.name for path in (directory / ".penstock").iterdir()} <= KEPT


def test_while_dev_runs_another_shell_can_use_its_servers(directory: Path) -> None:
    file = directory / ".penstock" / "env"
    with running("dev", environ={"PENSTOCK_HTTP__PORT": "0"}, directory=directory) as command:
        command.says(r"on the same servers: \. .*/\.penstock/env")
        assert file.stat().st_mode & 0o777 == 0o600
        shown = subprocess.run(
            ["sh", "-c", f". {file}; env -0"], env={}, capture_output=True, text=True, check=True
        )
        environ = dict(line.split("=", 1) for line in shown.stdout.split("\0") if line)
        assert penstock("migrate", "--check", environ=environ).returncode == 0
        assert penstock("config", "check", environ=environ).returncode == 0
        with running("serve", "--roles", "api", environ=environ, directory=Path("/")) as second:
            second.says("ready on")
            assert second.ends(signal.SIGTERM) == 0
        assert command.ends(signal.SIGTERM) == 0
    assert not file.exists()


def test_dev_looks_at_all_settings_before_it_starts_servers(directory: Path) -> None:
    environ = {"PENSTOCK_DEV__DIR": str(directory / "d"), "PENSTOCK_HTTP__PORT": "99999"}
    assert "http.port" in the_one_line(penstock("dev", environ=environ), 2)
    assert {path.name for path in (directory / "d").iterdir()} == KEPT


def test_a_directory_that_dev_can_not_make_is_told_by_its_setting(directory: Path) -> None:
    (directory / "file").touch()
    done = penstock("dev", environ={"PENSTOCK_DEV__DIR": str(directory / "file" / "d")})
    assert "PENSTOCK_DEV__DIR" in the_one_line(done, 2)


def test_a_token_of_the_development_secret_needs_no_more_than_the_environment(
    directory: Path,
) -> None:
    kept = directory / "jwt_secret"
    kept.write_text(SECRET)
    environ = {"PENSTOCK_ENV": "development", "PENSTOCK_DEV__DIR": str(directory)}
    done = penstock("token", environ=environ)
    assert jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])["sub"] == "cli"
    environ["PENSTOCK_ENV"] = "production"
    assert "auth.jwt_secret is required" in the_one_line(penstock("token", environ=environ), 2)
