"""From where a request came: the peer, or what trusted proxies say."""

import pytest
from multidict import CIMultiDict

from penstock.api.peers import Peers

PROXIES = ("10.0.0.0/8", "2001:db8::/32")


def origin(remote: str, *said: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = CIMultiDict([("X-Forwarded-For", one) for one in said])
    return Peers(trusted).origin(remote, headers)


@pytest.mark.parametrize(
    ("remote", "said", "found"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # anybody may say anything
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the first was his own word
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 10.2.3.4"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9", "10.2.3.4"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, , 10.2.3.4"], "10.2.3.4"),
        ("10.0.0.1", ["10.9.9.9, 10.2.3.4"], "10.9.9.9"),  # all of them are ours
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db9::1]:4711"], "2001:db9::1"),
        ("2001:db8::1", ["2001:DB9:0::1"], "2001:db9::1"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [", ".join(["203.0.113.9", *["10.1.1.1"] * 30])], "10.1.1.1"),
        ("10.0.0.1", ["fe80::1%" + "x" * 8000], "fe80::1"),
        ("10.0.0.1", ["[fe80::1%eth0]:4711"], "fe80::1"),
        ("a socket", ["203.0.113.9"], "a socket"),
    ],
)
def test_what_trusted_proxies_say_is_believed_and_nothing_else(
    remote: str, said: list[str], found: str
) -> None:
    assert origin(remote, *said) == found
