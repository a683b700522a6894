"""Settings in files of their own, as Docker and Kubernetes mount secrets."""

from pathlib import Path

import pytest

from penstock.settings import SettingsError, describe, load
from penstock.settings import secret_files as module
from tests.test_settings import SECRETS

DSN = "postgres://u:hush@h/d"


def written(directory: Path, files: dict[str, str]) -> dict[str, str]:
    for name, text in files.items():
        (directory / name).write_text(text)
    return {"PENSTOCK_SECRETS_DIR": str(directory)}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load({**SECRETS, **environ})
    return str(caught.value)


@pytest.mark.parametrize("name", ["postgres.dsn", "PENSTOCK_POSTGRES__DSN", "postgres__dsn"])
def test_a_file_is_called_by_its_key_or_its_variable(tmp_path: Path, name: str) -> None:
    environ = {
        **written(tmp_path, {name: f"{DSN}\n", "webhook.secrets": "[]", "roles": '["api"]'}),
        "PENSTOCK_REDIS__URL": SECRETS["PENSTOCK_REDIS__URL"],
        "PENSTOCK_AUTH__JWT_SECRET": SECRETS["PENSTOCK_AUTH__JWT_SECRET"],
    }
    settings = load(environ)
    assert settings.postgres.dsn.get_secret_value() == DSN
    assert settings.roles == ("api",)
    shown = {one.key: one for one in describe(settings)}
    assert shown["postgres.dsn"].source == str(tmp_path / name)
    assert "hush" not in str(shown)


def test_files_come_after_parameters_and_before_variables(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "base.yaml").write_text("http: {port: 1, keepalive_s: 1}\nworker: {threads: 1}\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    secret = tmp_path / "named"
    secret.write_text("a" * 40)
    environ = {
        **SECRETS,
        **written(secrets, {"http.port": "2", "worker.threads": "2", "auth.jwt_secret": "b" * 40}),
        "PENSTOCK_CONFIG_DIR": str(config),
        "PENSTOCK_HTTP__PORT": "3",
        "PENSTOCK_AUTH__JWT_SECRET_FILE": str(secret),
    }
    del environ["PENSTOCK_AUTH__JWT_SECRET"]
    settings = load(environ)
    assert (settings.http.keepalive_s, settings.worker.threads, settings.http.port) == (1, 2, 3)
    assert settings.auth.jwt_secret is not None
    assert settings.auth.jwt_secret.get_secret_value() == "a" * 40


def test_a_mount_of_kubernetes_is_read_through_its_links(tmp_path: Path) -> None:
    now = tmp_path / "..2026_11_30_12_00_00.1"
    now.mkdir()
    (now / "http.port").write_text("7")
    (tmp_path / "..data").symlink_to(now.name)
    (tmp_path / "http.port").symlink_to("..data/http.port")
    assert load({**SECRETS, "PENSTOCK_SECRETS_DIR": str(tmp_path)}).http.port == 7


def test_the_usual_place_may_be_missing_and_a_named_one_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "usual"
    monkeypatch.setattr(module, "DIRECTORY", usual)
    assert load(SECRETS).http.port == 8080
    usual.mkdir()
    written(usual, {"http.port": "7"})
    assert load(SECRETS).http.port == 7
    told = refusal({"PENSTOCK_SECRETS_DIR": str(tmp_path / "gone")})
    assert (
        told
        == f"PENSTOCK_SECRETS_DIR, {tmp_path / 'gone'}, can't be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"postgres.dns": "x"}, "postgres.dns is not a setting did you mean postgres.dsn?"),
        ({"README": "x"}, "README is not a setting"),
        ({"redis.url": " \n"}, "redis.url is empty drop the file"),
        ({"redis.url": "x" * 70_000}, "redis.url can't be read more than 65536 bytes"),
        ({"redis.url": "redis://a", "redis__url": "b"}, "redis__url redis.url is in redis.url too"),
        ({"redis.url": "hush"}, "redis.url must begin with redis://"),
        ({"webhook.secrets": "hush"}, "webhook.secrets must be a JSON list"),
        ({"PENSTOCK_AUTH__JWT_SECRET_FILE": "/x"}, "auth.jwt_secret_file is not a setting"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_its_path(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    without = {"PENSTOCK_REDIS__URL"} if "redis.url" in files else set()
    environ = {**SECRETS, **written(tmp_path, files)}
    with pytest.raises(SettingsError) as caught:
        load({name: text for name, text in environ.items() if name not in without})
    told = str(caught.value)
    for word in (str(tmp_path), *words.split()):
        assert word in told
    assert "hush" not in told
    assert "\n" not in told


def test_a_file_that_is_no_text_or_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "redis.url").write_bytes(b"\xff\xfe")
    (tmp_path / "postgres.dsn").mkdir()
    told = refusal({"PENSTOCK_SECRETS_DIR": str(tmp_path)})
    assert f"{tmp_path / 'redis.url'}: can't be read: it is no text in UTF-8" in told
    assert f"{tmp_path / 'postgres.dsn'}: can't be read: Is a directory" in told
