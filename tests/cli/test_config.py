"""`penstock config` with all sources at once, and secrets in every one of them."""

import json
import signal
from pathlib import Path

import pytest

from penstock.settings.names import is_told, known_fields
from tests.cli.command import Servers, penstock, running
from tests.support.parameter_store import ParameterStore

CANARY = "canaryhush"
JWT = f"{CANARY}-jwt-secret-of-32-bytes-and-more"
HOOK = "https://hooks.example.com/"
KEYS = {key for key, info in known_fields().items() if not is_told(info)}


@pytest.fixture
def places(directory: Path) -> dict[str, str]:
    """Directories of YAML and of secret files."""
    for name in ("config", "secrets"):
        (directory / name).mkdir()
    return {
        "PENSTOCK_CONFIG_DIR": str(directory / "config"),
        "PENSTOCK_SECRETS_DIR": str(directory / "secrets"),
    }


def test_each_value_is_shown_with_the_source_that_won(
    parameter_store: ParameterStore, places: dict[str, str], directory: Path
) -> None:
    base, own = directory / "config" / "base.yaml", directory / "config" / "staging.yaml"
    keys = [f"kinds.fail.{name}" for name in ("priority", "max_attempts", "timeout_s", "ttl_s")]
    names = [key.rpartition(".")[2] for key in keys]
    base.write_text("\nkinds:\n  fail: {priority: 1, max_attempts: 1, timeout_s: 1, ttl_s: 1}\n")
    own.write_text("kinds:\n  fail:\n    max_attempts: 2\n    timeout_s: 2\n    ttl_s: 2\n")
    path = parameter_store.path()
    parameter_store.put(path, {f"kinds/fail/{name}": "3" for name in names[2:]})
    (directory / "secrets" / "kinds.fail.ttl_s").write_text("4")
    (directory / "secrets" / "postgres.dsn").write_text(f"postgres://u:{CANARY}@h/d")
    parameter_store.put(path, {"auth/jwt_secret": JWT}, "SecureString")
    environ = {
        **parameter_store.environ,
        **places,
        "PENSTOCK_ENV": "staging",
        "PENSTOCK_SSM_PATH": path,
        "PENSTOCK_REDIS__URL": f"redis://:{CANARY}@127.0.0.1/0",
    }
    done = penstock("config", "show", "-o", "json", environ=environ)
    shown = {one["key"]: (one["value"], one["source"]) for one in json.loads(done.stdout)}
    assert [shown[key] for key in keys] == [
        (1, f"{base}:3"),
        (2, f"{own}:3"),
        (3, f"SSM parameter {path}/kinds/fail/timeout_s"),
        (4, str(directory / "secrets" / "kinds.fail.ttl_s")),
    ]
    masked = "********"
    assert shown["postgres.dsn"] == (masked, str(directory / "secrets" / "postgres.dsn"))
    assert shown["auth.jwt_secret"] == (masked, f"SSM parameter {path}/auth/jwt_secret")
    assert shown["redis.url"] == (masked, "environment variable PENSTOCK_REDIS__URL")
    table = penstock("config", "show", environ=environ)
    assert "kinds.fail.ttl_s" in table.stdout
    assert penstock("config", "check", environ=environ).returncode == 0
    assert CANARY not in done.stdout + done.stderr + table.stdout + table.stderr


@pytest.mark.parametrize("command", [("config", "check"), ("serve",)])
def test_all_mistakes_are_told_at_once_with_their_places(
    command: tuple[str, ...], places: dict[str, str], directory: Path
) -> None:
    base = directory / "config" / "base.yaml"
    base.write_text("http: {port: 0}\n\nkinds:\n  fail:\n    max_attempts: 0\n")
    (directory / "secrets" / "redis.url").write_text(CANARY)
    environ = {**places, "PENSTOCK_WORKER__THREADS": "x", "PENSTOCK_AUTH__JWT_SECRET": CANARY}
    done = penstock(*command, environ=environ)
    assert (done.returncode, done.stdout) == (2, "")
    for words in (
        "5 settings are wrong",
        f"{base}:5: kinds.fail.max_attempts = 0: it should be greater",
        f"{directory / 'secrets' / 'redis.url'}: redis.url: must begin with",
        "environment variable PENSTOCK_WORKER__THREADS: worker.threads = 'x'",
        "auth.jwt_secret: must have at least 32 bytes",
        "postgres.dsn is required: set PENSTOCK_POSTGRES__DSN",
    ):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stderr


def test_a_rule_that_could_tell_nobody_is_found_before_a_start(
    places: dict[str, str], directory: Path
) -> None:
    rule = "{name: night, on: [dead], email: ops@example.com}"
    (directory / "config" / "base.yaml").write_text(f"notifications: {{rules: [{rule}]}}")
    given = {
        **places,
        "PENSTOCK_POSTGRES__DSN": "postgresql://127.0.0.1:1/none",
        "PENSTOCK_REDIS__URL": "redis://127.0.0.1:1/0",
        "PENSTOCK_AUTH__JWT_SECRET": JWT,
    }
    for command, stream in ((("config", "check"), "stderr"), (("doctor",), "stdout")):
        done = penstock(*command, environ=given)
        assert done.returncode == (2 if stream == "stderr" else 1)
        assert "night: its email can't be served" in getattr(done, stream)


def test_parameters_that_can_not_be_had_are_one_line() -> None:
    environ = {"PENSTOCK_SSM_PATH": "/penstock", "AWS_REGION": ""}
    done = penstock("config", "check", environ=environ)
    assert done.returncode == 2
    assert done.stderr == (
        "penstock: PENSTOCK_SSM_PATH is /penstock, which can't be read: set AWS_REGION\n"
    )


def test_what_may_hold_a_secret_is_never_told_when_it_is_wrong(places: dict[str, str]) -> None:
    assert {"postgres.dsn", "smtp.password", "notifications.rules"} <= KEYS
    for key in KEYS:
        (Path(places["PENSTOCK_SECRETS_DIR"]) / key).write_text(f'["{CANARY}"]')
    notify = json.dumps({"fail": {"notify": [{"on": ["ded"], "webhook": f"{HOOK}{CANARY}"}]}})
    environ = {**places, "PENSTOCK_KINDS": notify, "PENSTOCK_QUEUES": f'{{"a": "{CANARY}"}}'}
    for words in (("config", "check"), ("config", "show"), ("config", "show", "-o", "json")):
        done = penstock(*words, environ=environ)
        assert done.returncode == 2
        assert "kinds.fail.notify" in done.stderr
        assert CANARY not in done.stdout + done.stderr


def test_a_server_with_secrets_from_everywhere_never_says_them(
    servers: Servers, places: dict[str, str], directory: Path
) -> None:
    notify = [{"on": ["dead"], "webhook": f"{HOOK}{CANARY}"}]
    (directory / "config" / "base.yaml").write_text(
        f"log: {{level: debug}}\nqueues: {{'*': {{notify: {json.dumps(notify)}}}}}\n"
        "webhook: {secrets: [whsec_dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3Rz]}\n"
    )
    (directory / "secrets" / "auth.jwt_secret").write_text(JWT)
    environ = {**servers.environ, **places}
    del environ["PENSTOCK_AUTH__JWT_SECRET"]
    assert penstock("migrate", environ=environ).returncode == 0
    for words in (("config", "show"), ("config", "show", "-o", "json")):
        shown = penstock(*words, environ=environ)
        assert "hooks.example.com" in shown.stdout
        assert CANARY not in shown.stdout
    with running("serve", environ=environ, directory=directory) as server:
        server.says("ready on")
        assert server.ends(signal.SIGTERM) == 0
        server.heard("")
        said = "".join(server.said)
    assert said
    assert CANARY not in said
    assert "dGVzdHMtb25seS" not in said
