"""Who is let in, who is turned away, and that a place is given back whatever happens."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from penstock.api.connection import Connection
from penstock.api.door import Door, Limits
from penstock.api.gate import Gate, Traffic
from penstock.api.problems import Overloaded
from penstock.commands.backlog import Backlog
from penstock.telemetry.metrics import Metrics
from tests.api.conftest import Served
from tests.api.wire import Answer, call, close, raw, read_answer
from tests.support.contract import contract
from tests.support.waiting import eventually

ID = "01934a5b-0000-7000-8000-000000000000"
BODY = b'{"kind": "echo"}'
SHUT = Limits(submissions_in_flight_max=0)

MakeToken = Callable[..., str]


def submission(body: bytes = BODY, path: str = "/v1/jobs", **headers: str) -> bytes:
    lines = {"host": "x", "content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def checked(answer: Answer, path: str = "/v1/jobs") -> Answer:
    contract().check("POST", path, answer.status, answer.headers, answer.body)
    return answer


def counted(door: Door, reason: str, traffic: str = "submission") -> float:
    labels = {"class": traffic, "reason": reason}
    return door.metrics.registry.get_sample_value("penstock_refused_total", labels) or 0.0


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch"])
async def test_a_refusal_says_which_limit_it_is_and_when_to_come_again(
    served: Served, door: Door, path: str
) -> None:
    async with served(limits=SHUT) as port:
        answer = checked(await raw(port, submission(path=path, x_request_id="mine")), path)
    assert answer.status == 503
    assert answer.json()["type"] == "/problems/overloaded"
    assert "http.submissions_in_flight_max (0)" in answer.json()["detail"]
    assert answer.headers["retry-after"] in {"1", "2", "3"}
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["cache-control"] == "no-store"
    assert counted(door, "requests", "batch" if "batch" in path else "submission") == 1
    labels = {"route": path, "method": "POST", "status": "503"}
    assert door.metrics.registry.get_sample_value("penstock_http_requests_total", labels) == 1


async def test_all_that_has_come_is_read_before_any_of_it_is_refused(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those who come again at once are read ahead of all that is under way."""
    happened: list[str] = []
    refuse, tell = Connection._refuse, Connection.tell

    def refused(self: Connection, *args: Any) -> None:
        happened.append("read")
        refuse(self, *args)

    def told(self: Connection) -> None:
        happened.append("told")
        tell(self)

    monkeypatch.setattr(Connection, "_refuse", refused)
    monkeypatch.setattr(Connection, "tell", told)
    async with served(limits=SHUT) as port:
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in links:
            writer.write(submission())
        for reader, writer in links:
            assert (await read_answer(reader)).status == 503
            await close(writer)
    assert happened[:6] == ["read"] * 3 + ["told"] * 3


async def test_who_sends_and_ends_at_once_hears_his_refusal(served: Served) -> None:
    async with served(limits=SHUT) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(submission())
        writer.write_eof()
        assert (await read_answer(reader)).status == 503
        await close(writer)


ODD = {
    "plain": submission(),
    "an id that is none": submission(x_request_id="a b"),
    "chunked": b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    b"content-type: application/json\r\n\r\n10\r\n" + BODY + b"\r\n0\r\n\r\n",
    "in other letters": submission().replace(b"content-length", b"CONTENT-Length"),
    "kept": submission(connection="keep-alive"),
}


@pytest.mark.parametrize("sent", ODD.values(), ids=ODD)
async def test_however_it_is_framed_it_is_refused_and_the_connection_goes_on(
    served: Served, sent: bytes
) -> None:
    async with served(limits=SHUT) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        seen = set()
        for request, status in ((sent, 503), (b"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n", 200)) * 3:
            writer.write(request)
            answer = await read_answer(reader)
            assert answer.status == status
            seen.add(answer.headers["x-request-id"])
        assert len(seen) == 6
        await close(writer)


@pytest.mark.parametrize("size", [1, 7, 60, 10_000])
async def test_pieces_of_any_size_are_one_request(served: Served, size: int) -> None:
    sent = submission(b'{"kind": "echo", "payload": "' + b"x" * 1000 + b'"}')
    async with served(limits=SHUT) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            for at in range(0, len(sent), size):
                writer.write(sent[at : at + size])
                await writer.drain()
                await asyncio.sleep(0)
            assert checked(await read_answer(reader)).status == 503
        await close(writer)


async def test_requests_on_top_of_each_other_are_answered_in_order(served: Served) -> None:
    livez = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    async with served(limits=SHUT) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for sent in (livez + submission() + livez, submission() + livez + submission()[:40]):
            writer.write(sent)
        writer.write(submission()[40:])
        found = [(await read_answer(reader)).status for _ in range(6)]
        assert found == [200, 503, 200, 503, 200, 503]
        await close(writer)


@pytest.mark.parametrize(
    "sent",
    [
        submission().replace(b"host: x\r\n", b"host: x\n"),
        submission(content_length="16, 16"),
        submission().replace(b"host: x\r\n", b"content-length: 5\r\n"),
        submission().replace(b"host: x\r\n", b"host: x\r\nx: \0\r\n"),
    ],
    ids=["a lone line feed", "two lengths", "two lengths in two lines", "a NUL"],
)
async def test_what_is_not_plain_is_left_to_the_parser(served: Served, sent: bytes) -> None:
    async with served(limits=SHUT) as port:
        assert (await raw(port, sent)).status == 400


async def test_health_and_counts_are_told_while_the_gate_is_shut(served: Served) -> None:
    none = Limits(submissions_in_flight_max=0, reads_in_flight_max=0, changes_in_flight_max=0)
    async with served(limits=none) as port:
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
            assert (await call(port, "GET", path, connection="keep-alive")).status == 200
            assert (await call(port, "GET", path)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "traffic"),
    [
        ("GET", f"/v1/jobs/{ID}", "read"),
        ("GET", "/v1/queues", "read"),
        ("POST", f"/v1/jobs/{ID}/cancel", "change"),
        ("POST", "/v1/queues/default/pause", "change"),
    ],
)
async def test_each_traffic_has_a_limit_of_its_own(
    served: Served, door: Door, method: str, path: str, traffic: str
) -> None:
    limits = {f"{traffic}s_in_flight_max": 0}
    async with served(limits=Limits(**limits)) as port:
        answer = await call(port, method, path, b"" if method == "POST" else None)
    assert answer.status == 503
    assert f"http.{traffic}s_in_flight_max (0)" in answer.json()["detail"]
    assert counted(door, "requests", traffic) == 1


class Held:
    """Reads that take until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.count = 0

    async def job(self, _id: bytes) -> None:
        self.count += 1
        await self.go.wait()


async def test_a_place_is_given_back_when_the_answer_is_there_and_when_the_caller_has_left(
    served: Served, token: MakeToken
) -> None:
    held, bearer = Held(), f"Bearer {token()}"
    async with served(limits=Limits(reads_in_flight_max=1), reads=held) as port:
        for _ in range(3):
            held.go.clear()
            first = asyncio.create_task(call(port, "GET", f"/v1/jobs/{ID}", authorization=bearer))
            count = held.count

            async def is_in(count: int = count) -> bool:
                return held.count > count

            await eventually(is_in, "the first is in")
            assert (await call(port, "GET", f"/v1/jobs/{ID}")).status == 503
            if count == 1:
                first.cancel()
                with suppress(asyncio.CancelledError):
                    await first
            held.go.set()
            if count != 1:
                assert (await first).status == 404

            async def is_free() -> bool:
                answer = await call(port, "GET", f"/v1/jobs/{ID}", authorization=bearer)
                return answer.status == 404

            await eventually(is_free, "the place is free again")


def gate(**limits: Any) -> tuple[Gate, Backlog]:
    backlog = Backlog()
    return Gate(replace(Limits(), **limits), backlog, Metrics()), backlog


def test_jobs_that_wait_for_their_commit_shut_it() -> None:
    one, backlog = gate(jobs_waiting_max=100)
    backlog.jobs = 99
    one.enter(Traffic.SUBMISSION).leave()
    backlog.jobs = 100
    with pytest.raises(Overloaded, match=r"http\.jobs_waiting_max \(100\)"):
        one.enter(Traffic.SUBMISSION)
    one.enter(Traffic.CHANGE).leave()


def test_slow_answers_let_fewer_in_but_always_some() -> None:
    one, _ = gate(submission_wait_max_s=-1.0)  # so that whatever comes is late
    for _ in range(20):
        for place in [one.enter(Traffic.SUBMISSION) for _ in range(64)]:
            place.leave()
    places = [one.enter(Traffic.SUBMISSION) for _ in range(64)]
    with pytest.raises(Overloaded, match="submission_wait_max_s"):
        one.enter(Traffic.SUBMISSION)
    places.pop().leave()
    one.enter(Traffic.SUBMISSION).leave()


def test_batches_are_let_in_by_their_jobs_and_leave_single_ones_alone() -> None:
    one, _ = gate()
    places = [one.enter(Traffic.BATCH, 1000) for _ in range(8)]
    with pytest.raises(Overloaded, match="submission_wait_max_s"):
        one.enter(Traffic.BATCH, 1)
    one.enter(Traffic.SUBMISSION).leave()
    places[0].holds(900)  # it was guessed
    one.enter(Traffic.BATCH, 1).leave()
    for place in places:
        place.leave()


def test_large_batches_do_not_shut_out_others_of_their_kind() -> None:
    one, _ = gate()
    places = [one.enter(Traffic.BATCH, 10_000) for _ in range(4)]
    with pytest.raises(Overloaded):
        one.enter(Traffic.BATCH, 10_000)
    for place in places:
        place.leave()
    one.enter(Traffic.BATCH, 10_000).leave()


def test_batches_that_take_long_let_fewer_in_but_always_some() -> None:
    one, _ = gate(submission_wait_max_s=-1.0)  # so that whatever comes is late
    for _ in range(20):
        one.enter(Traffic.BATCH, 1000).leave()
    places = [one.enter(Traffic.BATCH, 1000) for _ in range(4)]
    with pytest.raises(Overloaded):
        one.enter(Traffic.BATCH, 1000)
    places.pop().leave()
    one.enter(Traffic.BATCH, 1000).leave()


async def test_a_crowd_of_batches_is_refused_before_they_are_decoded(
    served: Served, door: Door, token: MakeToken
) -> None:
    """They wait for the pace one after the other, each counted, though none is submitted yet."""
    job = b'{"kind": "echo", "nobody": "knows this"}'
    body = b'{"jobs": [' + b", ".join([job] * 1000) + b"]}"
    async with served() as port:
        sent = submission(body, "/v1/jobs/batch", authorization=f"Bearer {token()}")
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        async with door.pace:  # somebody else works
            for _, writer in links:
                writer.write(sent)

            async def four() -> bool:
                return counted(door, "wait", "batch") == 4

            await eventually(four, "four are refused")
        statuses = [
            checked(await read_answer(reader), "/v1/jobs/batch").status for reader, _ in links
        ]
        for _, writer in links:
            await close(writer)
    assert sorted(statuses) == [422] * 8 + [503] * 4


def test_who_waits_for_a_job_gives_its_place_back_and_counts_apart() -> None:
    one, _ = gate(reads_in_flight_max=1, waits_max=1)
    waiting = one.enter(Traffic.READ)
    with waiting.waiting():
        other = one.enter(Traffic.READ)
        with pytest.raises(Overloaded, match="waits_max"):
            one.check_waits()
        other.leave()
        waiting.leave()
    assert one.may_wait
    one.enter(Traffic.READ).leave()
