"""Whom the server can tell."""

import pytest

from penstock.domain.effect import Channel, On, Rule, Wish
from penstock.domain.errors import WrongSetting
from penstock.egress import networks
from penstock.outlets.reach import Reach
from tests.egress.test_ssrf import HOSTS

WEBHOOK, EMAIL = Channel.WEBHOOK, Channel.EMAIL
ALL = Reach(hooks=True, mails=True, schemes=("http", "https"))


def test_webhooks_are_judged_by_the_rules_of_the_way_out() -> None:
    assert ALL(WEBHOOK, "https://example.com/hook?a=b") is None
    for url in (
        *("http://127.0.0.1/", "http://localhost/", "http://169.254.169.254/latest", "ftp://x.com"),
        *("https://ada:secret@example.com/", "http://[::ffff:10.0.0.1]/", "http://0x7f.1/", "x"),
        *("file:///etc/passwd", "gopher://x.com/", "http://x.com:22/", "https://x.com/a b"),
        "https://example.com/" + "x" * 2048,
    ):
        assert ALL(WEBHOOK, url), url
    inside = Reach(networks(["127.0.0.0/8"]), hooks=True, schemes=("http",))
    assert inside(WEBHOOK, "http://127.0.0.1:8080/") is None


@pytest.mark.parametrize("host", HOSTS)
def test_no_url_of_this_machine_is_taken(host: str) -> None:
    assert ALL(WEBHOOK, f"http://{host}/")


def test_plain_http_is_for_those_who_allow_it() -> None:
    told = Reach(hooks=True)(WEBHOOK, "http://example.com/")
    assert told == "the URL must begin with https://"
    assert Reach(hooks=True)(WEBHOOK, "HTTPS://example.com/") is None


def test_a_channel_that_is_not_configured_is_refused() -> None:
    told = Reach()(WEBHOOK, "https://example.com/")
    assert told is not None
    assert "PENSTOCK_WEBHOOK__SECRETS='[" in told
    told = Reach()(EMAIL, "ops@example.com")
    assert told is not None
    assert "smtp.host" in told
    assert ALL(EMAIL, "ops@example.com") is None
    assert ALL(EMAIL, "ops@example.com, eve@example.com")
    assert (Reach().channels, ALL.channels) == ([], [WEBHOOK, EMAIL])


@pytest.mark.parametrize("topic", ["penstock.dead-letters.v1", ""])
def test_nobody_asks_for_dead_letters(topic: str) -> None:
    assert ALL(Channel.DEAD_LETTER, topic)


def test_a_rule_that_could_tell_nobody_stops_the_start() -> None:
    rule = Rule("night-watch", Wish((On.DEAD,), WEBHOOK, "https://example.com/"))
    ALL.demand([rule])
    with pytest.raises(WrongSetting, match=r"night-watch: its webhook .*webhook\.secrets"):
        Reach(mails=True).demand([rule])
