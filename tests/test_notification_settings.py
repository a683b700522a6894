"""Settings of what leaves the house: webhooks' secrets, the mail server, rules."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from penstock.domain.effect import Channel, On, Rule, Wish
from penstock.domain.grouping import By, Grouping
from penstock.domain.quiet import Window, quiet_until
from penstock.settings import Notifications, SettingsError, describe, load
from penstock.settings.yaml_file import read
from tests.test_settings import SECRETS
from tests.test_tidy import ROOT

SECRET = "whsec_" + "QUFB" * 8
OTHER = "whsec_" + "QkJC" * 8
RULE = {"name": "a", "on": ["first_failure", "recovery"], "webhook": "https://hooks.test/s3cret"}


def refusal(**given: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load({**SECRETS, **{f"PENSTOCK_{name}": value for name, value in given.items()}})
    return str(caught.value)


def shown(environ: dict[str, str]) -> dict[str, object]:
    return {one.key: one.value for one in describe(load({**SECRETS, **environ}))}


def test_secrets_come_as_a_list_and_are_never_shown() -> None:
    environ = {"PENSTOCK_WEBHOOK__SECRETS": json.dumps([SECRET, OTHER])}
    settings = load({**SECRETS, **environ})
    assert [one.get_secret_value() for one in settings.webhook.secrets] == [SECRET, OTHER]
    assert "QUFB" not in str(shown(environ))
    assert "QUFB" not in repr(settings)


def test_secrets_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps([SECRET]) + "\n")
    settings = load({**SECRETS, "PENSTOCK_WEBHOOK__SECRETS_FILE": str(path)})
    assert [one.get_secret_value() for one in settings.webhook.secrets] == [SECRET]


@pytest.mark.parametrize(
    "secret",
    [
        "QUFB" * 8,
        "whsec_",
        "whsec_" + "QUFB" * 7,
        "whsec_" + "QUFB" * 22,
        "whsec_" + "QUF!" * 8,
        "whsec_" + "QUFB" * 8 + "Q",
    ],
)
def test_a_wrong_secret_is_refused_and_not_repeated(secret: str) -> None:
    told = refusal(WEBHOOK__SECRETS=json.dumps([secret]))
    assert "webhook.secrets" in told
    assert "openssl rand" in told
    assert "QUF" not in told


def test_a_secret_that_is_there_twice_is_refused() -> None:
    assert "there twice" in refusal(WEBHOOK__SECRETS=json.dumps([SECRET, SECRET]))


def test_a_mail_server_is_set_by_few_variables() -> None:
    settings = load(
        {
            **SECRETS,
            "PENSTOCK_SMTP__HOST": "mail.example.com",
            "PENSTOCK_SMTP__FROM_ADDRESS": "penstock@example.com",
            "PENSTOCK_SMTP__USERNAME": "penstock",
            "PENSTOCK_SMTP__PASSWORD": "hush",
        }
    )
    smtp = settings.smtp
    assert (smtp.host, smtp.port, smtp.tls) == ("mail.example.com", 587, "starttls")
    assert "hush" not in repr(smtp)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"HOST": "mail"}, "smtp.from_address is required"),
        ({"FROM_ADDRESS": "Ops <ops@example.com>"}, "one plain address"),
        ({"USERNAME": "a"}, "smtp.username and smtp.password go together"),
        ({"USERNAME": "a", "PASSWORD": "hush", "TLS": "none"}, "sent unprotected"),
        ({"TLS": "ssl"}, "smtp.tls"),
    ],
)
def test_a_wrong_mail_server_is_named(given: dict[str, str], words: str) -> None:
    told = refusal(**{f"SMTP__{name}": value for name, value in given.items()})
    assert words in told
    assert "hush" not in told


def test_rules_become_those_of_the_policy_and_hide_their_urls() -> None:
    whole = {**RULE, "queues": ["bill*"], "kinds": ["k"], "tags": ["t"], "throttle_s": 60}
    mail = {"name": "b", "on": ["dead"], "email": "ops@example.com"}
    environ = {"PENSTOCK_NOTIFICATIONS__RULES": json.dumps([whole, mail])}
    first, second = load({**SECRETS, **environ}).notifications.rules
    on = (On.FIRST_FAILURE, On.RECOVERY)
    wish = Wish(on, Channel.WEBHOOK, "https://hooks.test/s3cret")
    assert first.as_rule() == Rule("a", wish, ("bill*",), ("k",), ("t",), 60.0)
    assert second.as_rule().wish == Wish((On.DEAD,), Channel.EMAIL, "ops@example.com")
    assert shown(environ)["notifications.rules"] == [
        "a: first_failure, recovery to hooks.test",
        "b: dead to ops@example.com",
    ]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"name": "a", "on": ["dead"]}], "a webhook or an email, and not both"),
        ([{**RULE, "email": "ops@example.com"}], "a webhook or an email, and not both"),
        ([{**RULE, "on": []}], "0.on"),
        ([{**RULE, "on": ["died"]}], "0.on"),
        ([{**RULE, "email": "ops", "webhook": None}], "one plain address"),
        ([{**RULE, "color": "red"}], "0.color"),
        ([RULE, RULE], "two rules a"),
        ([{**RULE, "throttle_s": -1}], "0.throttle_s"),
    ],
)
def test_a_wrong_rule_is_named_by_its_place(rules: object, words: str) -> None:
    told = refusal(NOTIFICATIONS__RULES=json.dumps(rules))
    assert "notifications.rules" in told
    assert words in told
    assert "s3cret" not in told


def test_quiet_hours_and_groups_become_those_of_the_rule() -> None:
    quiet = [
        {"from": "22:00", "until": "7:00", "days": ["fri", "sat"], "timezone": "Europe/Berlin"},
        {"days": ["sun"]},
        {"from": 1320, "until": "24:00"},  # 22:00 without quotes, as YAML reads it
    ]
    group = {"by": ["kind", "error_type"], "wait_s": 5, "every_s": 60}
    environ = {
        "PENSTOCK_NOTIFICATIONS__RULES": json.dumps([{**RULE, "quiet": quiet, "group": group}])
    }
    (given,) = load({**SECRETS, **environ}).notifications.rules
    rule = given.as_rule()
    berlin, utc, always = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), frozenset(range(7))
    assert rule.quiet == (
        Window(22 * 60, 7 * 60, frozenset({4, 5}), berlin),
        Window(0, 24 * 60, frozenset({6}), utc),
        Window(22 * 60, 24 * 60, always, utc),
    )
    assert rule.group == Grouping((By.KIND, By.ERROR_TYPE), 5, 60)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"quiet": [{"from": "25:00"}]}, '"00:00" to "24:00"'),
        ({"quiet": [{"from": "9 pm"}]}, "0.quiet.0.from"),
        ({"quiet": [{"from": True}]}, "0.quiet.0.from"),
        ({"quiet": [{"from": "22:00", "until": "22:00"}]}, "a whole day is from 00:00 until 24:00"),
        ({"quiet": [{"timezone": "Berlin"}]}, "name of a time zone"),
        ({"quiet": [{"timezone": "../etc/passwd"}]}, "name of a time zone"),
        ({"quiet": [{"days": ["sunday"]}]}, "0.quiet.0.days.0"),
        ({"quiet": [{"days": []}]}, "0.quiet.0.days"),
        ({"quiet": [{}]}, "together they never end"),
        ({"quiet": [{"from": "7:00", "until": "1:00"}, {"until": "8:00"}]}, "they never end"),
        ({"group": {"by": ["tags"]}}, "0.group.by.0"),
        ({"group": {"wait_s": -1}}, "0.group.wait_s"),
        ({"group": {"jobs_max": 10_001}}, "0.group.jobs_max"),
        ({"group": {"every": 5}}, "0.group.every"),
    ],
)
def test_wrong_times_of_a_rule_are_named(given: dict[str, object], words: str) -> None:
    told = refusal(NOTIFICATIONS__RULES=json.dumps([{**RULE, **given}]))
    assert "notifications.rules" in told
    assert words in told


def test_the_rule_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (ROOT / "app" / "docs" / "notifications.md").read_text()
    (text,) = re.findall(r"```yaml\n(notifications:\n.*?)```", page, re.DOTALL)
    file = tmp_path / "base.yaml"
    file.write_text(text)
    (rule,) = Notifications.model_validate(read(file).tree["notifications"]).rules
    assert rule.group is not None
    assert quiet_until(rule.as_rule().quiet, datetime(2026, 7, 3, 21, tzinfo=UTC)) == datetime(
        2026, 7, 6, 5, tzinfo=UTC
    ), "Friday night, the weekend and Sunday night are one"
