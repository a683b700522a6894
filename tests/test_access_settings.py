"""The settings of key sets and of rate limits."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.caller import Caller, Role
from penstock.settings import Settings, SettingsError, describe, load

ENVIRON = {
    "PENSTOCK_POSTGRES__DSN": "postgres://u@h/d",
    "PENSTOCK_REDIS__URL": "redis://h",
}
URL = "PENSTOCK_AUTH__JWKS_URL"
RULES = "PENSTOCK_RATE_LIMITS__RULES"
SECRET = {"PENSTOCK_AUTH__JWT_SECRET": "a-secret-of-32-bytes-and-more-of-them"}


def made(**environ: str) -> Settings:
    return load({**ENVIRON, **environ}, Path("config"))


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as refused:
        made(**environ)
    return str(refused.value)


def limits(*rows: dict[str, Any]) -> dict[str, str]:
    return {**SECRET, RULES: json.dumps(rows)}


def test_a_key_set_stands_for_the_secret() -> None:
    auth = made(**{URL: "https://id.example/jwks"}).auth
    assert (auth.jwks_url, auth.jwt_secret) == ("https://id.example/jwks", None)
    assert (auth.jwks_ttl_s, auth.jwks_stale_s, auth.jwks_cooldown_s) == (600, 86_400, 30)
    assert (auth.jwks_timeout_s, auth.jwks_max_bytes) == (5, 256 * 1024)
    assert URL in refusal()


def test_secrets_of_before_are_as_strong_and_hidden_and_follow_one() -> None:
    name = "PENSTOCK_AUTH__PREVIOUS_SECRETS"
    one = "b" * 40
    settings = made(**SECRET, **{name: json.dumps([one])})
    assert [it.get_secret_value() for it in settings.auth.previous_secrets] == [one]
    assert one not in str([it.value for it in describe(settings)])
    assert "at least 32 bytes" in refusal(**SECRET, **{name: '["short"]'})
    assert "at most 3" in refusal(**SECRET, **{name: json.dumps([one] * 4)})
    told = refusal(**{URL: "https://id.example/jwks", name: json.dumps([one])})
    assert "auth.previous_secrets goes with auth.jwt_secret" in told
    assert one not in told


@pytest.mark.parametrize(
    ("url", "env", "passes"),
    [
        ("https://id.example/jwks", "production", True),
        ("https://10.0.0.1:8443/jwks?x=1", "production", True),
        ("http://id.example/jwks", "production", False),
        ("http://127.0.0.1/jwks", "production", False),
        ("http://127.0.0.1:5000/jwks", "development", True),
        ("http://localhost/jwks", "test", True),
        ("http://[::1]/jwks", "test", True),
        ("http://127.0.0.1.evil.example/jwks", "test", False),
        ("http://id.example/jwks", "development", False),
    ],
)
def test_a_key_set_is_fetched_by_https_but_for_this_machine(
    url: str, env: str, passes: bool
) -> None:
    environ = {URL: url, "PENSTOCK_ENV": env}
    if not passes:
        told = refusal(**environ)
        assert "auth.jwks_url is http" in told
        assert "auth.jwks_allow_http" in told
        environ["PENSTOCK_AUTH__JWKS_ALLOW_HTTP"] = "true"
    assert made(**environ).auth.jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://x/jwks", "id.example/jwks", "https://", "https:///jwks", "https://x:0/", "{}"),
        *("https://u:p@x/jwks", "https://x/jwks#a", "https://x/a b", "https://x/é", "https://x\n/"),
        *("https://x:99999/", "https://[::1/", "https://x/" + "a" * 2100),
    ],
)
def test_what_is_no_url_of_a_key_set_is_refused(url: str) -> None:
    assert "auth.jwks_url" in refusal(**{URL: url})


def test_keys_are_not_void_before_they_are_old() -> None:
    told = refusal(
        **{
            URL: "https://x/",
            "PENSTOCK_AUTH__JWKS_TTL_S": "600",
            "PENSTOCK_AUTH__JWKS_STALE_S": "60",
        }
    )
    assert "auth.jwks_stale_s (60) must be at least auth.jwks_ttl_s (600)" in told


def test_limits_are_none_by_default_and_read_in_order() -> None:
    assert made(**SECRET).rate_limits.as_rules() == ()
    rows = (
        {"counts": "jobs", "limit": 6000, "burst": 500, "sub": "ci-*", "roles": ["operator"]},
        {"counts": "reads", "limit": 10, "period_s": 1},
    )
    settings = made(**limits(*rows))
    first, second = settings.rate_limits.as_rules()
    assert (first.unit_s, first.burst, first.roles) == (0.01, 500, frozenset({Role.OPERATOR}))
    assert first.is_for(Caller("ci-x", frozenset({Role.OPERATOR})))
    assert not first.is_for(Caller("ci-x", frozenset({Role.VIEWER})))
    assert not first.is_for(Caller("a-ci-x", frozenset({Role.OPERATOR})))
    assert (second.period_s, second.burst, second.sub) == (1, 10, None)
    shown = next(one.value for one in describe(settings) if one.key == "rate_limits.rules")
    assert shown == [
        "6000 jobs in 60 s, 500 at once for ci-* as operator",
        "10 reads in 1 s",
    ]


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({}, "counts"),
        ({"counts": "jobs"}, "limit"),
        ({"counts": "all", "limit": 1}, "counts"),
        ({"counts": "jobs", "limit": 0}, "greater than or equal to 1"),
        ({"counts": "jobs", "limit": 1, "burst": 0}, "burst"),
        ({"counts": "jobs", "limit": 1, "period_s": 0}, "period_s"),
        ({"counts": "jobs", "limit": 10_000_000, "period_s": 1}, "100000 a second at most"),
        ({"counts": "jobs", "limit": 1, "sub": ""}, "sub"),
        ({"counts": "jobs", "limit": 1, "sub": "*a*b*c*"}, "one * before its end"),
        ({"counts": "jobs", "limit": 1, "roles": ["root"]}, "roles"),
        ({"counts": "jobs", "limit": 1, "per": 1}, "per"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(row: dict[str, Any], word: str) -> None:
    told = refusal(**limits(row))
    assert "rate_limits.rules" in told
    assert word in told
