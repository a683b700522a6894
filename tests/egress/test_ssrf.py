"""Forged requests: whatever the URL, nothing may reach the canary on this machine."""

import asyncio
import socket

import pytest
import uvloop
from aiohttp import ClientError, ClientSession
from aiohttp.abc import AbstractResolver, ResolveResult

from penstock.egress import Egress, EgressError, EgressRefused
from tests.egress.names import told
from tests.egress.receiver import canary, receiver, saying

HOSTS = [
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "127.1",
    "127.0.1",
    "0",
    "0.0.0.0",
    "00000000",
    "0x7f.1",
    "0x7f.0.0.1",
    "0x7F000001",
    "0x0",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.0.0.1.",
    "127.0.0.01",
    "127%2e0%2e0%2e1",
    "%31%32%37.0.0.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127\uff0e0\uff0e0\uff0e1",
    "\uff11\uff12\uff17.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "localhost..",
    "loc\u00adalhost",
    "ⓛocalhost",
    "evil.localhost",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:0:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[::1%25lo]",
    "[fe80::1%25lo]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[ff02::1]",
    "[5f00::1]",
    "[2001:db8::1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.0.8",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "metadata.google.internal",
    "user@127.0.0.1",
    "user:password@127.0.0.1",
    "example.com@127.0.0.1",
    "example.com\\@127.0.0.1",
    "127.0.0.1\\@example.com",
    "example.com%00@127.0.0.1",
    " 127.0.0.1",
    "127.0.0.1 ",
    "127.0.0.1\t",
    "127.0.0.1\r\nX: y",
    "127.0.0.1%0d%0a",
    "127.0.0.1%20",
    "[127.0.0.1]",
    "[::1].example.com",
]

INTERNAL = [
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "fe80::1",
]


async def test_no_url_reaches_this_machine() -> None:
    async with canary(host="0.0.0.0") as bird, Egress() as http:
        for host in HOSTS:
            for url in (f"http://{host}:{bird.port}/", f"https://{host}:{bird.port}/"):
                with pytest.raises(EgressRefused):
                    await http.request("GET", url, timeout_s=5)
        assert bird.knocks == 0
    assert len(HOSTS) >= 60


async def test_the_canary_does_sing_when_it_is_allowed_to_be_reached() -> None:
    async with canary() as bird, Egress(["127.0.0.0/8"]) as http:
        with pytest.raises(EgressError):
            await http.request("GET", f"http://127.0.0.1:{bird.port}/")
        assert bird.knocks > 0


@pytest.mark.parametrize("address", INTERNAL)
async def test_a_name_that_leads_inside_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, lambda name: [address])
    async with canary() as bird, Egress() as http:
        with pytest.raises(EgressRefused, match=r"inside\.test"):
            await http.request("GET", f"http://inside.test:{bird.port}/")
        assert bird.knocks == 0


async def test_of_a_name_with_two_addresses_only_the_allowed_one_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 127.0.0.2, where nobody listens, stands for a public address.
    told(monkeypatch, lambda name: ["127.0.0.1", "127.0.0.2", "::1"])
    async with canary() as bird, Egress(["127.0.0.2/32"], connect_timeout_s=0.2) as http:
        with pytest.raises(EgressError):
            await http.request("GET", f"http://both.test:{bird.port}/", timeout_s=0.5)
        assert bird.knocks == 0


async def test_a_name_that_changes_between_look_ups_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([["127.0.0.2"], ["127.0.0.1"]])
    told(monkeypatch, lambda name: next(answers))
    async with canary() as first, canary() as second, Egress(["127.0.0.2/32"]) as http:
        with pytest.raises(EgressError):
            await http.request("GET", f"http://rebinds.test:{first.port}/", timeout_s=1)
        # Another port, because answers are kept for a while by name and port.
        with pytest.raises(EgressRefused):
            await http.request("GET", f"http://rebinds.test:{second.port}/", timeout_s=1)
        assert first.knocks == second.knocks == 0


class _Liar(AbstractResolver):
    """A resolver without a guard, as if the first of our two doors stood open."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        pass


async def test_the_socket_itself_is_guarded_whatever_the_resolver_says() -> None:
    async with canary() as bird:
        connector = Egress()._connector(_Liar())
        async with ClientSession(connector=connector) as session:
            for host in ("liar.test", "127.0.0.1", "[::ffff:127.0.0.1]"):
                with pytest.raises(ClientError):
                    await session.get(f"http://{host}:{bird.port}/")
        assert bird.knocks == 0


def test_the_guard_holds_on_uvloop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, lambda name: ["127.0.0.1"])

    async def play() -> int:
        async with canary() as bird, Egress() as http, receiver(saying("hi")) as there:
            for host in ("127.0.0.1", "localhost", "inside.test", "[::ffff:127.0.0.1]"):
                with pytest.raises(EgressRefused):
                    await http.request("GET", f"http://{host}:{bird.port}/")
            async with Egress(["127.0.0.0/8"]) as open_http:
                assert (await open_http.request("GET", there.url)).body == b"hi"
            return bird.knocks

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(play()) == 0


async def test_a_redirect_to_the_inside_is_an_answer_and_not_followed() -> None:
    async with canary() as bird:
        target = f"http://127.0.0.1:{bird.port}/"
        async with (
            receiver(saying(status=302, headers={"Location": target})) as there,
            Egress(["127.0.0.0/8"]) as http,
        ):
            response = await http.request("GET", there.url)
        assert response.status == 302
        assert response.headers["location"] == target
        assert bird.knocks == 0


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with canary() as bird, receiver(saying("direct")) as there:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{bird.port}")
        async with Egress(["127.0.0.0/8"]) as http:
            assert (await http.request("GET", there.url)).body == b"direct"
        assert bird.knocks == 0
