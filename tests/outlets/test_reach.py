"""Whom the server can tell."""

import pytest

from penstock.domain.effect import Channel
from penstock.egress import networks
from penstock.outlets.reach import Reach

WEBHOOK, EMAIL = Channel.WEBHOOK, Channel.EMAIL


def test_webhooks_are_judged_by_the_rules_of_the_way_out() -> None:
    reach = Reach()
    assert reach(WEBHOOK, "https://example.com/hook?a=b") is None
    for url in (
        *("http://127.0.0.1/", "http://localhost/", "http://169.254.169.254/latest", "ftp://x.com"),
        *("https://ada:secret@example.com/", "http://[::ffff:10.0.0.1]/", "http://0x7f.1/", "x"),
    ):
        assert reach(WEBHOOK, url), url
    assert Reach(networks(["127.0.0.0/8"]))(WEBHOOK, "http://127.0.0.1:8080/") is None


def test_mail_is_refused_where_there_is_no_server_for_it() -> None:
    told = Reach()(EMAIL, "ops@example.com")
    assert told is not None
    assert "smtp.host" in told
    assert Reach(mails=True)(EMAIL, "ops@example.com") is None
    assert Reach(mails=True)(EMAIL, "ops@example.com, eve@example.com")


@pytest.mark.parametrize("topic", ["penstock.dead-letters.v1", ""])
def test_nobody_asks_for_dead_letters(topic: str) -> None:
    assert Reach(mails=True)(Channel.DEAD_LETTER, topic)
