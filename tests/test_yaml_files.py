"""YAML files: the line of each mistake, all of them at once, and files that are no settings."""

from pathlib import Path

import pytest

from penstock.settings import SettingsError, describe, load
from penstock.settings.yaml_file import BYTES_MAX
from tests.test_settings import SECRETS


def refusal(config_dir: Path, text: str) -> str:
    (config_dir / "base.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(SECRETS, config_dir)
    return str(caught.value)


def test_every_mistake_of_every_file_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.yaml").write_text(
        "http:\n"
        "  port: 99999\n"
        "  prot: 1\n"
        "kinds:\n"
        "  fail:\n"
        "    max_attempts: 0\n"
        "    backoff: {kind: cubic}\n"
        "  Fail: {ttl_s: 1}\n"
        "worker: 7\n"
        "log:\n"
        "  level: info\n"
        "  level: debug\n"
    )
    (tmp_path / "production.yaml").write_text("# mine\nqueues: {mail: {queue: x}}\n")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(SettingsError) as caught:
        load({**SECRETS, "PENSTOCK_FOO": "1"}, tmp_path)
    base, own = f"{tmp_path.name}/base.yaml", f"{tmp_path.name}/production.yaml"
    told = [line.removeprefix("  - ") for line in str(caught.value).splitlines()]
    assert told[0] == "9 settings are wrong:"
    for n, words in enumerate(
        [
            f"{base}:12: log.level is there twice, first in line 11: drop one",
            f"{base}:3: http.prot is not a setting: did you mean http.port?",
            f"{base}:9: worker is a section: write its settings below it, indented",
            f"{own}:2: queues.mail.queue is not a setting: known there: queues.mail.priority",
            "environment variable PENSTOCK_FOO: PENSTOCK_FOO is not a setting: drop it",
            f"{base}:2: http.port = 99999: it should be less than or equal to 65535 (port to",
            f"{base}:6: kinds.fail.max_attempts = 0: it should be greater than or equal to 1",
            f"{base}:7: kinds.fail.backoff.kind = 'cubic': it should be 'exponential', 'linear'",
            f"{base}:8: kinds Fail can't be a name: it should match ",
        ],
        1,
    ):
        assert told[n].startswith(words)


def test_a_mistake_in_a_list_is_told_with_the_line_of_its_item(tmp_path: Path) -> None:
    told = refusal(
        tmp_path,
        "notifications:\n"
        "  rules:\n"
        "    - name: a\n"
        "      on: [dead]\n"
        "      email: ops@example.com\n"
        "    - name: b\n"
        "      on: [dead]\n"
        "    - name: c\n"
        "      email: ops@example.com\n"
        "      on:\n"
        "        - dead\n"
        "        - never\n"
        "      group:\n"
        "        wait_s: soon\n"
        "egress:\n"
        "  allow:\n"
        "    - 127.0.0.0/8\n"
        "    - nowhere\n",
    )
    for line in (6, 12, 14, 18):
        assert f"base.yaml:{line}: " in told
    own = refusal(tmp_path, "egress:\n  allow:\n    - 127.0.0.0/8\n    - nowhere\n")
    assert "base.yaml:4: egress.allow" in own
    (tmp_path / "base.yaml").write_text("egress:\n  allow:\n    - 127.0.0.0/8\n")
    with pytest.raises(SettingsError, match="environment variable PENSTOCK_EGRESS__ALLOW: egress"):
        load({**SECRETS, "PENSTOCK_EGRESS__ALLOW": '["nowhere"]'}, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http:\n  port: [1\n", ":3: can't be read: expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", ":2: can't be read: found character '\\t'"),
        ("log:\n  level: 2026-02-31\n", ":2: can't be read: day "),
        ("http: {port: !!python/object:os.system x}", ":1: can't be read: could not determine"),
        ("- http", " must hold sections (`http:`, `worker:`, ...) at its top"),
        ("x: &a [1]\ny: *b\n", ":2: can't be read: found undefined alias"),
        ("a: \0", " can't be read: unacceptable character #x0000"),
        ("---\nhttp:\n---\nhttp:\n", ":3: can't be read: but found another document"),
        ("# " + "x" * BYTES_MAX, f" can't be read: it has more than {BYTES_MAX} bytes"),
        ("x: " + "[" * 50 + "]" * 50, " can't be read: it is more than 20 levels deep"),
        ("x: " + "[" * 2_000, " can't be read: maximum recursion depth exceeded"),
        ("x: &a {y: *a}\n", " can't be read: it is more than 20 levels deep"),
        (
            "\n".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}1]" for n in range(1, 12)).replace(
                "*a0,", ""
            ),
            " can't be read: it has more than 100000 values",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_a_file_that_can_not_be_read_is_told_in_one_line(
    tmp_path: Path, text: str, words: str
) -> None:
    told = refusal(tmp_path, text)
    assert told.startswith(f"{tmp_path / 'base.yaml'}{words}")
    assert "\n" not in told


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_bytes(b"http:\n  port: \xff\n")
    with pytest.raises(SettingsError, match=r"base\.yaml can't be read: "):
        load(SECRETS, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "kafka: {password: *hush}",
        "kafka: {password: !hush x}",
        "kafka: {password: &hush x, username: &hush y}",
        "kafka:\n  password: hush: hush\n",
        "kafka:\n  password: 'hush\n",
        "kafka: {password: [hush]}",
        "kafka: hush",
        "hush",
        "auth: {public_keys: [hush]}",
        "kinds: {fail: {notify: [{on: [dead], webhook: [hush]}]}}",
        "kinds: {fail: {notify: [{on: [ded], webhook: 'https://x/hush'}]}}",
        "kinds: {fail: {notify: hush}}",
    ],
)
def test_a_secret_that_yaml_takes_for_something_else_is_not_told(tmp_path: Path, text: str) -> None:
    assert "hush" not in refusal(tmp_path, text)


def test_anchors_and_names_that_yaml_takes_for_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "kinds:\n"
        "  mail: &mail\n"
        "    timeout_s: 3\n"
        "    priority: 1\n"
        "  on:\n"
        "    <<: *mail\n"
        "    priority: 2\n"
        "  '1.0': {priority: 3}\n"
        "  null: {priority: 4}\n"
        "notifications:\n"
        "  rules: [{name: x, on: [dead], email: a@b.c}]\n"
    )
    settings = load(SECRETS, tmp_path)
    priorities = {name: kind.priority for name, kind in settings.kinds.items()}
    assert priorities == {"mail": 1, "on": 2, "1.0": 3, "null": 4}
    assert settings.kinds["on"].timeout_s == 3
    shown = {one.key: one.source for one in describe(settings)}
    assert shown["kinds.on.priority"] == f"{tmp_path / 'base.yaml'}:7"
    assert shown["kinds.on.timeout_s"] == f"{tmp_path / 'base.yaml'}:3"
    assert [str(rule) for rule in settings.notifications.rules] == ["x: dead to a@b.c"]
