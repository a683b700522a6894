"""The deny list, the URLs and the headers, as tables."""

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.egress import EgressRefused, header_refusal, networks, refusal, url_refusal
from penstock.egress.guard import parsed_url

REFUSED = (
    "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 "
    "127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 "
    "172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.170 192.0.0.192 192.0.2.1 192.31.196.1 "
    "192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255 192.175.48.1 198.18.0.1 198.19.255.255 "
    "198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 "
    "::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe ::ffff:0:0 "
    "::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::1 "
    "64:ff9b:1::8.8.8.8 100::1 100:0:0:1::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 "
    "2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:20::1 2001:30::1 "
    "2001:1ff:ffff::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 2620:4f:8000::1 3fff::1 "
    "3fff:fff::1 5f00::1 fc00::1 fd00:ec2::254 fdff::1 fe80::1 fe80::1%eth0 fe80::a9fe:a9fe "
    "febf::1 fec0::1 feff::1 ff00::1 ff02::1 ff0e::1 4000::1 8000::1 200::1 1::1 "
)

PASSED = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 93.184.216.34 100.63.255.255 100.128.0.1 "
    "126.255.255.255 128.0.0.1 169.253.255.255 172.15.255.255 172.32.0.1 192.0.1.1 "
    "192.167.255.255 192.169.0.1 198.17.255.255 198.20.0.1 223.255.255.255 ::ffff:8.8.8.8 "
    "64:ff9b::8.8.8.8 2001:200::1 2001:4860:4860::8888 2606:4700:4700::1111 "
    "2a00:1450:4001:81b::200e 3ffe::1 "
)

NOT_ADDRESSES = (
    "127.1 0 0x7f.0.0.1 0x7f000001 2130706433 017700000001 0177.0.0.1 127.0.0.01 1.2.3 1.2.3.4.5 "
    "256.1.1.1 localhost example.com ::ffff:127.1 [::1] 127.0.0.1:80 127.0.0.1/8 1.1.1.1%eth0 "
)


@pytest.mark.parametrize("address", REFUSED.split())
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize("address", PASSED.split())
def test_a_public_address_passes(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("address", [*NOT_ADDRESSES.split(), "", " 127.0.0.1", "①②⑦.0.0.1"])
def test_what_is_not_a_plain_address_is_refused(address: str) -> None:
    assert refusal(address) is not None


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    allow = networks(["10.1.0.0/16", "fd00:1::/32"])
    assert refusal("10.1.2.3", 443, allow) is None
    assert refusal("::ffff:10.1.2.3", 443, allow) is None  # the same host
    assert refusal("64:ff9b::10.1.2.3", 443, allow) is None  # the same host behind NAT64
    assert refusal("fd00:1::5", 443, allow) is None
    for near in ("10.2.0.1", "127.0.0.1", "fd00:2::5", "2002:a01:203::1", "::10.1.2.3"):
        assert refusal(near, 443, allow) is not None


def test_a_port_of_another_protocol_is_refused_even_in_an_allowed_network() -> None:
    allow = networks(["127.0.0.0/8"])
    assert refusal("127.0.0.1", 8080, allow) is None
    for port in (0, 22, 25, 5432, 6379, 11211):
        assert refusal("127.0.0.1", port, allow) is not None
        assert refusal("8.8.8.8", port) is not None


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_python_itself_calls_private_never_passes(ip: IPv4Address | IPv6Address) -> None:
    hidden = (ip.is_private, ip.is_multicast, ip.is_reserved, ip.is_link_local, ip.is_loopback)
    inner = ip in ip_network("64:ff9b::/96") or getattr(ip, "ipv4_mapped", None)
    if any(hidden) and not inner:
        assert refusal(str(ip)) is not None


@given(st.ip_addresses(v=4))
def test_every_way_of_writing_an_ipv4_address_gets_the_same_verdict(ip: IPv4Address) -> None:
    plain = refusal(str(ip)) is None
    for prefix in ("::ffff:", "64:ff9b::"):
        assert (refusal(f"{prefix}{ip}") is None) is plain
    for carrier in (f"::{ip}", f"::ffff:0:{ip}", f"64:ff9b:1::{ip}"):
        assert refusal(carrier) is not None


BAD_URLS = [
    "",
    "example.com",
    "//example.com/",
    "/path",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "data:text/plain,x",
    "unix:///run/docker.sock",
    "javascript:alert(1)",
    "ws://example.com/",
    "http:example.com",
    "http:///example.com",
    "http://",
    "http://:80/",
    "https://?x",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http:\\\\example.com",
    "http://exa mple.com/",
    " http://example.com/",
    "http://example.com/ ",
    "http://example.com/\r\nHost: x",
    "http://example.com/\x00",
    "http://example.com/\x7f",
    "http://example.com/\u2028",
    "http://example.com/\ud800",
    "http://example.com:0/",
    "http://example.com:22/",
    "http://example.com:25/",
    "http://example.com:6379/",
    "http://example.com:65536/",
    "http://example.com:99999/",
    "http://example.com:-1/",
    "http://example.com:80:80/",
    "http://example.com:http/",
    "http://[::1",
    "http://::1/",
    "http://[::1].example/",
    "http://[127.0.0.1]/",
    "http://[fe80::1%25eth0]/",
    "http://127.1/",
    "http://0/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://127.0.0.1./",
    "http://1.2.3.4.5/",
    "http://256.0.0.1/",
    "http://127%2e0.0.1/",
    "http://%31%32%37.0.0.1/",
    "http://exa*mple.com/",
    "http://exa<mple.com/",
    "http://a..b/",
    "http://" + "a" * 254 + "/",
    "http://example.com/" + "a" * 2048,
]

GOOD_URLS = [
    "http://example.com",
    "https://example.com/",
    "HTTPS://EXAMPLE.COM/Path?q=1&r=a%20b#part",
    "https://example.com:8443/x",
    "http://a_b.example.com/",
    "http://example.com./",
    "http://xn--fa-hia.de/",
    "http://faß.de/ä?ö",
    "http://8.8.8.8/",
    "http://[2001:4860:4860::8888]:8080/",
    "http://service.namespace.svc.cluster.local/",
    "http://example.com/@user",
    "http://example.com/?next=http://127.0.0.1/",
    "http://127.0.0.1/",  # by its form; whether it may be reached is the guard's to say
    "http://localhost:8080/",
    "http://example.com/" + "a" * 2029,
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_refused_without_being_repeated(url: str) -> None:
    why = url_refusal(url)
    assert why is not None
    assert "secret" not in why
    assert len(why) < 200


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_good_url_passes(url: str) -> None:
    assert url_refusal(url) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:7f00:1]",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "metadata.google.internal",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
    ],
)
def test_a_private_host_is_refused_at_the_door_when_asked_for(host: str) -> None:
    assert url_refusal(f"http://{host}/", allow=()) is not None
    assert url_refusal("http://example.com/", allow=()) is None


def test_localhost_passes_where_loopback_is_allowed() -> None:
    assert url_refusal("http://localhost:8080/", allow=networks(["127.0.0.0/8"])) is None


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://example.com", "http://example.com/"),
        ("http://EXAMPLE.com?a=1#part", "http://example.com/?a=1"),
        ("http://example.com/a%2Fb?sig=%2F%7e+x", "http://example.com/a%2Fb?sig=%2F%7e+x"),
        ("http://example.com/a/../b", "http://example.com/b"),
        ("http://example.com/ä", "http://example.com/%C3%A4"),
        ("http://example.com/a%zz", "http://example.com/a%25zz"),
        ("http://example.com?http://127.0.0.1/", "http://example.com/?http://127.0.0.1/"),
        ("http://example.com//127.0.0.1/", "http://example.com//127.0.0.1/"),
    ],
)
def test_a_url_is_sent_as_it_was_written(url: str, sent: str) -> None:
    assert str(parsed_url(url)) == sent


@given(st.text("/?#:@.%2Fa1[]!", max_size=30))
def test_path_and_query_never_change_who_is_called(rest: str) -> None:
    for separator in "/?#":
        with suppress(EgressRefused):
            assert parsed_url(f"http://example.com:81{separator}{rest}").authority == (
                "example.com:81"
            )


@given(st.text(max_size=100))
def test_any_text_is_judged_without_raising(text: str) -> None:
    url_refusal(text)
    url_refusal(f"http://{text}/", allow=())
    refusal(text)
    header_refusal(text, text)


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "TE"]
)
def test_a_header_of_the_connection_is_refused(name: str) -> None:
    assert header_refusal(name, "x") is not None


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ä", "a\0", ":path", "x" * 257])
def test_what_is_not_a_header_name_is_refused(name: str) -> None:
    assert header_refusal(name, "x") is not None


@pytest.mark.parametrize(
    "value", ["a\r\nb: c", "a\n", "a\rb", "a\0", "\x1b[1m", "\ud800", "x" * 8191]
)
def test_a_header_value_that_would_break_out_is_refused(value: str) -> None:
    assert header_refusal("X-Test", value) is not None


def test_an_ordinary_header_passes() -> None:
    assert header_refusal("Authorization", "Bearer abc.def") is None
    assert header_refusal("X-Näme".replace("ä", "a"), "with\ttab and ümlaut") is None


def test_the_system_resolves_odd_forms_to_loopback_which_is_why_they_are_refused() -> None:
    for odd in ("127.1", "0x7f.1", "2130706433", "0177.0.0.1"):
        found = socket.getaddrinfo(odd, 80, type=socket.SOCK_STREAM)
        assert ip_address(found[0][4][0]).is_loopback
        assert url_refusal(f"http://{odd}/") is not None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("192.168.1.1", "192.168.0.0/16"),
        ("127.0.0.1", "127.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("fd00::1", "fc00::/7"),
    ],
)
def test_the_refusal_of_an_inner_address_says_how_an_operator_can_allow_it(
    address: str, network: str
) -> None:
    told = refusal(address)
    assert told is not None
    assert f"egress.allow (PENSTOCK_EGRESS__ALLOW='[\"{network}\"]')" in told
    assert refusal(address, None, networks([network])) is None


def test_the_metadata_of_clouds_is_refused_without_advice() -> None:
    assert "egress.allow" not in str(refusal("169.254.169.254"))
