"""Large answers that nobody takes off: bounded for all and for each, and given back in any case."""

import asyncio
import gc
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from aiohttp import web

from penstock.api.door import MIB, Limits
from penstock.commands.change import Changes
from penstock.domain.errors import StoreUnavailable
from penstock.domain.view import JobView
from penstock.store.lists import PAGE_BYTES, JobPage
from tests.api.conftest import Served
from tests.api.test_porter import bearer, check_problem
from tests.api.test_views import VIEW
from tests.api.wire import Answer, call, close, raw, read_answer
from tests.support.waiting import eventually

MakeToken = Callable[..., str]

ROOM = Limits(answers_max_bytes=8 * MIB, body_timeout_s=60)  # half of it for each: four answers
SIZE = MIB - 10_000  # of a payload: too much for what the kernel keeps for a connection
LARGE, SMALL, BROKEN = (f"01934a5b-0000-7000-8000-00000000000{n}" for n in range(3))
LIST = "/v1/jobs?include=payload"


class Shelf:
    """A large job, a small one, and one that can't be read; lists that count who looks."""

    def __init__(self) -> None:
        self.looks = 0
        self.go = asyncio.Event()
        self.go.set()
        self.changed = 0
        self.listed: list[JobView] = []

    async def job(self, id_: bytes) -> JobView:
        text = str(id_.hex())
        if text.endswith("2"):
            raise StoreUnavailable("gone")
        size = SIZE if text.endswith("0") else 10
        return replace(VIEW, payload=f'"{"x" * size}"')

    async def jobs(self, *_: Any, **__: Any) -> JobPage:
        self.looks += 1
        await self.go.wait()
        return JobPage(self.listed, None)

    async def cancel(self, _id: bytes, _entry: object) -> None:
        self.changed += 1


def opened(served: Served, shelf: Shelf, limits: Limits = ROOM) -> Any:
    parts: dict[str, Any] = {"reads": shelf, "lists": shelf, "changes": cast(Changes, shelf)}
    return served(limits=limits, **parts)


def asking(token: str, path: str = f"/v1/jobs/{LARGE}", method: str = "GET") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer(token)}\r\n"
    return f"{head}\r\n".encode()


class Deaf:
    """Callers who ask for something large and take nothing off."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    async def ask(self, sent: bytes, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", self._port))
            await loop.sock_sendall(sock, sent)
            self._sockets.append(sock)

    def leave(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()


async def show(port: int, token: str, path: str = f"/v1/jobs/{LARGE}") -> Answer:
    return await call(port, "GET", path, authorization=bearer(token))


async def eventually_shown(port: int, token: str, status: int) -> Answer:
    async def look() -> Answer | None:
        answer = await show(port, token)
        return answer if answer.status == status else None

    return cast(Answer, await eventually(look, f"a large job is answered with {status}"))


async def test_what_is_not_taken_off_is_bounded_and_nobody_shuts_out_the_others(
    served: Served, token: MakeToken
) -> None:
    shelf = Shelf()
    async with opened(served, shelf) as port:
        deaf, mine = Deaf(port), token()
        await deaf.ask(asking(mine), 4)
        refused = await eventually_shown(port, mine, 503)
        document = check_problem(refused, 503, "overloaded")
        assert "yours is being sent" in document["detail"]
        assert refused.headers["retry-after"] == "1"
        assert (await show(port, mine, f"/v1/jobs/{SMALL}")).status == 200
        assert (await show(port, token(sub="bob"))).status == 200
        await deaf.ask(asking(token(sub="bob")), 4)
        await eventually_shown(port, token(sub="bob"), 503)
        document = check_problem(await show(port, token(sub="eve")), 503, "overloaded")
        assert document["detail"].startswith("too much is being sent")
        for path in ("/livez", "/readyz", "/docs", "/docs/swagger-ui-bundle.js"):
            assert (await call(port, "GET", path)).status == 200
        deaf.leave()
        await eventually_shown(port, mine, 200)


async def test_a_list_with_payloads_is_refused_before_anything_is_read(
    served: Served, token: MakeToken
) -> None:
    shelf = Shelf()
    shelf.go.clear()
    count = ROOM.answers_max_bytes // 2 // PAGE_BYTES
    async with opened(served, shelf) as port:
        under_way = [asyncio.create_task(show(port, token(), LIST)) for _ in range(count)]

        async def all_look() -> bool:
            return shelf.looks == count

        await eventually(all_look, "as many look as there is room for")
        check_problem(await show(port, token(), LIST), 503, "overloaded")
        assert shelf.looks == count
        shelf.go.set()
        for answer in await asyncio.gather(*under_way, show(port, token(), "/v1/jobs")):
            assert answer.status == 200
        assert (await show(port, token(), LIST)).status == 200


async def test_what_nobody_foresaw_counts_too(served: Served, token: MakeToken) -> None:
    shelf = Shelf()
    shelf.listed = [replace(VIEW, error=f'{{"message":"{"x" * SIZE}"}}')]
    async with opened(served, shelf) as port:
        deaf = Deaf(port)
        await deaf.ask(asking(token(), "/v1/jobs"), 4)
        await eventually_shown(port, token(), 503)
        raised = await raw(port, asking(token(), "/v1/jobs"))
        check_problem(raised, 503, "overloaded")
        deaf.leave()
        await eventually_shown(port, token(), 200)


async def test_a_change_whose_answer_finds_no_room_is_not_made(
    served: Served, token: MakeToken
) -> None:
    shelf = Shelf()
    async with opened(served, shelf) as port:
        deaf = Deaf(port)
        await deaf.ask(asking(token(), f"/v1/jobs/{LARGE}/cancel", "POST"), 4)
        await eventually_shown(port, token(), 503)
        path = f"/v1/jobs/{LARGE}/cancel"
        refused = await call(port, "POST", path, authorization=bearer(token()))
        check_problem(refused, 503, "overloaded")
        assert shelf.changed == 4
        deaf.leave()
        await eventually_shown(port, token(), 200)


@pytest.mark.parametrize("how", ["read", "left", "half read", "cut", "left while it was read"])
async def test_room_is_given_back_however_an_answer_ends(
    served: Served, token: MakeToken, how: str
) -> None:
    shelf = Shelf()
    limits = replace(ROOM, body_timeout_s=0.2) if how == "cut" else ROOM
    async with opened(served, shelf, limits) as port:
        deaf = Deaf(port)
        for _ in range(3):  # more than there is room for, if any of it stayed
            if how == "read":
                assert (await show(port, token())).status == 200
                continue
            if how == "left while it was read":
                shelf.go.clear()
                await deaf.ask(asking(token(), LIST), 4)
            else:
                await deaf.ask(asking(token()), 4)
                await eventually_shown(port, token(), 503)
            if how == "half read":
                for sock in deaf._sockets:
                    await asyncio.get_running_loop().sock_recv(sock, 4096)
            if how != "cut":
                deaf.leave()
            shelf.go.set()
            await eventually_shown(port, token(), 200)
        deaf.leave()
        readers = Deaf(port)  # all of the room is there again
        await readers.ask(asking(token()), 3)
        assert (await show(port, token())).status == 200
        readers.leave()


async def test_what_fails_takes_no_room(served: Served, token: MakeToken) -> None:
    shelf = Shelf()
    async with opened(served, shelf) as port:
        for _ in range(10):
            check_problem(await show(port, token(), f"/v1/jobs/{BROKEN}"), 503, "store-unavailable")
            check_problem(await show(port, token(), "/v1/jobs/x"), 404, "not-found")
        deaf = Deaf(port)
        await deaf.ask(asking(token()), 3)
        assert (await show(port, token())).status == 200
        deaf.leave()


async def test_an_idle_connection_does_not_keep_its_last_answer(
    served: Served, token: MakeToken
) -> None:
    async with opened(served, Shelf()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking(token()))
        assert (await read_answer(reader)).status == 200

        async def is_gone() -> bool:
            found = [one for one in gc.get_objects() if isinstance(one, web.Response)]
            return not any(isinstance(one.body, bytes) and len(one.body) > SIZE for one in found)

        await eventually(is_gone, "the answer is let go of")
        with suppress(ConnectionError):
            writer.write(asking(token(), f"/v1/jobs/{SMALL}"))
        assert (await read_answer(reader)).status == 200
        await close(writer)


async def test_a_large_answer_is_whole_on_the_wire(served: Served, token: MakeToken) -> None:
    async with opened(served, Shelf()) as port:
        answer = await raw(port, asking(token()))
        assert answer.json()["payload"] == "x" * SIZE
