"""Settings of kinds and queues: merged value by value, each with its source."""

import json
from pathlib import Path

import pytest

from penstock.domain.effect import Channel, On, Wish
from penstock.domain.job import State
from penstock.domain.retry import Backoff, Curve
from penstock.settings import Settings, describe, load
from penstock.settings.names import known_within, path_of
from tests.test_settings import SECRETS, refusal


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(
        "kinds:\n"
        "  fail: {max_attempts: 3, queue: trouble}\n"
        "  mail.send:\n"
        "    backoff:\n"
        "      kind: fixed\n"
        "queues:\n"
        "  mail*: {strict: yes, priority: 7}\n"
    )
    (tmp_path / "staging.yaml").write_text("kinds: {mail.send: {backoff: {base_s: 4}}}\n")
    return tmp_path


def loaded(environ: dict[str, str], config_dir: Path) -> Settings:
    return load({**SECRETS, "PENSTOCK_ENV": "staging", **environ}, config_dir)


def test_kinds_and_queues_are_merged_value_by_value(config_dir: Path) -> None:
    environ = {
        "PENSTOCK_KINDS": '{"fail": {"max_attempts": 4, "retention": {"dead_s": 60}}}',
        "PENSTOCK_KINDS__FAIL__TIMEOUT_S": "2",
        "PENSTOCK_KINDS__MAIL__SEND__BACKOFF__MAX_S": "9",
        "PENSTOCK_QUEUES": '{"mail*": {"priority": 8}}',
    }
    settings = loaded(environ, config_dir)
    shown = {one.key: (one.value, one.source) for one in describe(settings)}
    base, staging = str(config_dir / "base.yaml"), str(config_dir / "staging.yaml")
    expected = {
        "kinds.fail.max_attempts": (4, "environment variable PENSTOCK_KINDS"),
        "kinds.fail.queue": ("trouble", f"{base}:2"),
        "kinds.fail.retention.dead_s": (60, "environment variable PENSTOCK_KINDS"),
        "kinds.fail.timeout_s": (2, "environment variable PENSTOCK_KINDS__FAIL__TIMEOUT_S"),
        "kinds.mail.send.backoff.base_s": (4, f"{staging}:1"),
        "kinds.mail.send.backoff.kind": ("fixed", f"{base}:5"),
        "kinds.mail.send.backoff.max_s": (
            9,
            "environment variable PENSTOCK_KINDS__MAIL__SEND__BACKOFF__MAX_S",
        ),
        "queues.mail*.priority": (8, "environment variable PENSTOCK_QUEUES"),
        "queues.mail*.strict": (True, f"{base}:7"),
    }
    assert {key: shown[key] for key in shown if key.startswith(("kinds", "queues"))} == expected

    book = settings.book()
    assert book.resolve("mail.send").backoff == Backoff(Curve.FIXED, 4, max_s=9)
    found = book.resolve("fail")
    assert (found.queue, found.max_attempts, found.strict) == ("trouble", 4, False)
    found = book.resolve("echo", "mail-eu")
    assert (found.priority, found.strict) == (8, True)


def test_who_is_told_of_a_kinds_ends(config_dir: Path) -> None:
    notices = [{"on": ["dead"], "webhook": "https://example.com/hush"}]
    environ = {"PENSTOCK_KINDS": json.dumps({"fail": {"notify": notices}})}
    settings = loaded(environ, config_dir)
    wish = Wish((On.DEAD,), Channel.WEBHOOK, "https://example.com/hush")
    assert settings.book().resolve("fail").notify == (wish,)
    shown = {one.key: one.value for one in describe(settings)}
    assert shown["kinds.fail.notify"] == ["dead to example.com"]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PENSTOCK_KINDS": "[]"}, "PENSTOCK_KINDS JSON object"),
        ({"PENSTOCK_KINDS": '{"fail": 1}'}, "PENSTOCK_KINDS kinds.fail section"),
        ({"PENSTOCK_KINDS__FAIL": "1"}, "PENSTOCK_KINDS__FAIL not a setting"),
        (
            {"PENSTOCK_KINDS__FAIL__MAX_ATEMPTS": "1"},
            "did you mean PENSTOCK_KINDS__FAIL__MAX_ATTEMPTS?",
        ),
        ({"PENSTOCK_KINDS__FAIL__MAX_ATTEMPTS": "0"}, "kinds.fail.max_attempts '0' equal 1"),
        ({"PENSTOCK_KINDS": '{"Fail!": {"ttl_s": 1}}'}, "kinds Fail! pattern"),
        ({"PENSTOCK_QUEUES": '{"a b": {"strict": true}}'}, "queues a b pattern"),
        ({"PENSTOCK_QUEUES": '{"a": {"queue": "b"}}'}, "queues.a.queue not a setting"),
        ({"PENSTOCK_KINDS": '{"a": {"strict": true}}'}, "kinds.a.strict not a setting"),
        ({"PENSTOCK_KINDS__A__RETENTION__DEAD_S": "9"}, "kinds.a.retention.dead_s 60"),
        ({"PENSTOCK_KINDS__A__NOTIFY": '[{"on": ["dead"]}]'}, "kinds.a.notify 0: webhook"),
        (
            {"PENSTOCK_KINDS__A__NOTIFY": '[{"on": ["recovery"], "email": "a@b.c"}]'},
            "kinds.a.notify 0.on: notifications.rules",
        ),
        (
            {"PENSTOCK_KINDS__A__NOTIFY": json.dumps([{"on": ["dead"], "email": "a@b.c"}] * 2)},
            "kinds.a.notify endpoint twice",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_key_and_source(environ: dict[str, str], words: str) -> None:
    message = refusal(environ)
    for word in (next(iter(environ)), *words.split()):
        assert word in message


def test_no_kind_and_no_queue_is_kept_longer_than_all_are(config_dir: Path) -> None:
    environ = {
        "PENSTOCK_RETENTION__DEAD_S": "100",
        "PENSTOCK_KINDS__FAIL__RETENTION__DEAD_S": "100",
        "PENSTOCK_QUEUES": '{"*": {"retention": {"dead_s": 70, "skipped_s": 80}}}',
    }
    book = loaded(environ, config_dir).book()
    assert book.kept_s("fail", "x") == {State.DEAD: 100, State.SKIPPED: 80}
    assert book.kept_s("echo", "x") == {State.DEAD: 70, State.SKIPPED: 80}
    environ["PENSTOCK_KINDS__FAIL__RETENTION__DEAD_S"] = "101"
    message = refusal(environ)
    for words in (
        "kinds.fail.retention.dead_s (101) must be at most retention.dead_s (100)",
        "variable PENSTOCK_KINDS__FAIL__RETENTION__DEAD_S",
        "variable PENSTOCK_RETENTION__DEAD_S",
    ):
        assert words in message
    environ["PENSTOCK_RETENTION__DEAD_S"] = "0"
    loaded(environ, config_dir)


def test_a_key_is_never_two() -> None:
    for map_name in ("kinds", "queues"):
        known = known_within(map_name)
        outer = {key for key in known if "." not in key}
        assert outer.isdisjoint(key.rpartition(".")[2] for key in known if "." in key)
        for name in ("fail", "mail.send", "a.max_attempts", "a.backoff", "backoff.kind"):
            for key in known:
                path = path_of(f"{map_name}.{name}.{key}")
                assert path == (map_name, name, *key.split("."))
