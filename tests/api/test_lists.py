"""Lists over HTTP: pages, links, filters, and what a caller of some queues gets to see."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from penstock.server import Replica
from tests.api.wire import Answer, call
from tests.support.api import Api, token

JOBS: list[dict[str, Any]] = [
    {"kind": "echo", "queue": "mail", "tags": ["eu", "a b&c"], "delay_s": 3600},
    {"kind": "echo", "queue": "mail", "tags": ["us"], "delay_s": 3600},
    {"kind": "other", "queue": "mail-eu", "tags": ["eu"], "delay_s": 3600},
    {"kind": "nobody-serves-it", "queue": "billing"},
    {"kind": "nobody-serves-it", "queue": "billing", "payload": {"a": 1}},
]


@pytest.fixture
async def ids(api: Api) -> list[str]:
    """The jobs above, oldest first."""
    return await api.submit_many(JOBS)


async def get(replica: Replica, path: str, queues: list[str] | None = None) -> Answer:
    port = urlsplit(replica.url).port
    assert port is not None
    bearer = f"Bearer {token('viewer', queues=queues)}"
    return await call(port, "GET", path, authorization=bearer)


async def listed(replica: Replica, path: str, queues: list[str] | None = None) -> list[str]:
    answer = await get(replica, path, queues)
    assert answer.status == 200, answer.body
    page = answer.json()
    assert page["next_cursor"] is None
    return [item["id"] for item in page["items"]]


async def test_jobs_are_listed_newest_first_without_payloads(
    replica: Replica, ids: list[str]
) -> None:
    page = (await get(replica, "/v1/jobs")).json()
    assert [item["id"] for item in page["items"]] == ids[::-1]
    shown = (await get(replica, f"/v1/jobs/{ids[0]}")).json()
    assert page["items"][-1] == {
        name: value for name, value in shown.items() if name not in ("payload", "result")
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("queue=mail", [1, 0]),
        ("queue=mail&queue=mail-eu&queue=mail", [2, 1, 0]),
        ("kind=echo&tag=us", [1]),
        ("kind=echo&kind=other&tag=eu", [2, 0]),
        ("tag=a+b%26c", [0]),
        ("state=ready", [4, 3]),
        ("state=ready&state=scheduled&queue=billing&queue=mail-eu", [4, 3, 2]),
        ("state=blocked", []),
        ("state=skipped", []),
        ("queue=nobody-has-it", []),
        ("created_before=2026-01-01T00:00:00Z", []),
        ("created_after=2026-01-01T00:00:00Z&created_before=2100-01-01T00:00:00Z", [4, 3, 2, 1, 0]),
        ("created_after=9999-12-31T23:59:59Z", []),
        ("created_after=0001-01-01T00:00:00Z", [4, 3, 2, 1, 0]),
    ],
)
async def test_filters_mean_any_of_one_name_and_all_of_the_names(
    replica: Replica, ids: list[str], query: str, found: list[int]
) -> None:
    assert await listed(replica, f"/v1/jobs?{query}") == [ids[n] for n in found]


async def test_a_window_begins_with_its_first_millisecond_and_ends_before_its_last(
    replica: Replica, api: Api
) -> None:
    job = await api.submit("nobody-serves-it")
    created_at = (await api.get(f"/v1/jobs/{job}"))["created_at"]
    assert await listed(replica, f"/v1/jobs?created_after={created_at}") == [job]
    assert await listed(replica, f"/v1/jobs?created_before={created_at}") == []
    finer = created_at.replace("Z", "001Z")
    assert await listed(replica, f"/v1/jobs?created_after={finer}") == []
    assert await listed(replica, f"/v1/jobs?created_before={finer}") == [job]


async def test_the_link_leads_through_all_pages(replica: Replica, ids: list[str]) -> None:
    found, path = [], "/v1/jobs?limit=2&queue=mail&queue=billing&queue=mail-eu&include=payload"
    while path:
        answer = await get(replica, path)
        page = answer.json()
        assert all("payload" in item and "result" not in item for item in page["items"])
        found.append([item["id"] for item in page["items"]])
        link = answer.headers.get("link")
        assert (link is None) == (page["next_cursor"] is None)
        if link is None:
            break
        target, _, rel = link.partition("; ")
        assert rel == 'rel="next"'
        path = target[1:-1]
        assert path.startswith("/v1/jobs?limit=2&")  # no host: whichever was asked
        assert path.endswith(f"cursor={page['next_cursor']}")
    assert found == [ids[:2:-1], ids[2:0:-1], ids[:1]]


async def test_a_cursor_of_another_query_is_refused(replica: Replica, ids: list[str]) -> None:
    cursor = (await get(replica, "/v1/jobs?limit=1")).json()["next_cursor"]
    assert (await get(replica, f"/v1/jobs?cursor={cursor}")).status == 200
    for path, queues in (
        (f"/v1/jobs?queue=mail&cursor={cursor}", None),
        (f"/v1/jobs?cursor={cursor}", ["mail"]),
        (f"/v1/queues?cursor={cursor}", None),
        (f"/v1/workers?cursor={cursor}", None),
        (f"/v1/jobs/{ids[0]}/attempts?cursor={cursor}", None),
    ):
        answer = await get(replica, path, queues)
        assert (answer.status, answer.json()["type"]) == (400, "/problems/bad-cursor")


@pytest.mark.parametrize(
    ("queues", "query", "found"),
    [
        (["mail"], "", [1, 0]),
        (["mail-*"], "", [2]),
        (["mail*"], "", [2, 1, 0]),
        (["mail*"], "queue=billing", []),
        (["mail*"], "queue=billing&queue=mail", [1, 0]),
        (["mail*"], "tag=eu", [2, 0]),
        (["mail*"], "kind=nobody-serves-it", []),
        (["bill*", "mail-eu"], "state=ready&state=scheduled", [4, 3, 2]),
        (["b[ij]lling", "??il"], "", [4, 3, 1, 0]),
        (["[!b]*"], "", [2, 1, 0]),
        (["nothing", "no*"], "", []),
        ([], "", []),
    ],
)
async def test_a_list_shows_the_callers_own_queues_only(
    replica: Replica, ids: list[str], queues: list[str], query: str, found: list[int]
) -> None:
    assert await listed(replica, f"/v1/jobs?{query}", queues) == [ids[n] for n in found]


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs", "/v1/queues", "/v1/workers", "/v1/jobs/{id}/attempts", "/v1/jobs/{id}/logs"],
)
async def test_every_list_refuses_what_it_does_not_know(
    replica: Replica, ids: list[str], path: str
) -> None:
    path = path.format(id=ids[0])
    for query, slug in (
        ("stat=dead", "unknown-query-parameter"),
        ("limit=201", "bad-query-parameter"),
        ("limit=1&limit=1", "bad-query-parameter"),
        ("cursor=x", "bad-cursor"),
        ("limit=%ff", "bad-request"),
        ("limit=1%00", "bad-request"),
    ):
        answer = await get(replica, f"{path}?{query}")
        assert (answer.status, answer.json()["type"]) == (400, f"/problems/{slug}"), query


@pytest.fixture
async def session(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    con = await asyncpg.connect(dsn)
    yield con
    await con.close()


ATTEMPTS = """
INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome)
SELECT $1, n, gen_random_uuid(), now(), now(), 'failed' FROM generate_series(1, 7) n
"""
LINES = """
INSERT INTO job_logs (job_id, attempt, seq, at, level, message)
SELECT $1, a, s, now(), 'info', a || '.' || s FROM generate_series(1, 3) a, generate_series(0, 4) s
"""


async def pages(replica: Replica, path: str, queues: list[str] | None = None) -> list[list[Any]]:
    """The items of all pages."""
    found: list[list[Any]] = []
    cursor = ""
    while True:
        answer = await get(replica, path + cursor, queues)
        assert answer.status == 200, answer.body
        page = answer.json()
        found.append(page["items"])
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_attempts_and_logs_are_paged_oldest_first(
    replica: Replica, ids: list[str], session: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await session.execute(ATTEMPTS, ids[0])
    await session.execute(LINES, ids[0])
    attempts = await pages(replica, f"/v1/jobs/{ids[0]}/attempts?limit=3")
    assert [[one["attempt"] for one in page] for page in attempts] == [[1, 2, 3], [4, 5, 6], [7]]
    lines = await pages(replica, f"/v1/jobs/{ids[0]}/logs?limit=6")
    assert [len(page) for page in lines] == [6, 6, 3]
    messages = [line["message"] for page in lines for line in page]
    assert messages == [f"{a}.{s}" for a in (1, 2, 3) for s in range(5)]
    assert len((await get(replica, f"/v1/jobs/{ids[0]}/logs")).json()["items"]) == 15


async def test_queues_are_paged_by_name(replica: Replica, ids: list[str]) -> None:
    found = await pages(replica, "/v1/queues?limit=2")
    assert [[one["name"] for one in page] for page in found] == [["billing", "mail"], ["mail-eu"]]
    assert found[0][1]["counts"]["scheduled"] == 2
    own = await pages(replica, "/v1/queues?limit=1", ["mail*", "not-there"])
    assert [[one["name"] for one in page] for page in own] == [["mail"], ["mail-eu"]]
    exact = await pages(replica, "/v1/queues?limit=1", ["mail-eu", "not-there"])
    assert [[one["name"] for one in page] for page in exact] == [["mail-eu"]]


WORKERS = """
INSERT INTO workers (worker_id, host, pid, version, queues, kinds, slots, started_at, beat_at,
                     expires_at, condemned_at)
SELECT ('00000000-0000-7000-8000-00000000000' || n)::uuid, 'host-' || n, 1, '0',
       ARRAY['*', 'mail-*', 'billing', 'b*'], ARRAY['echo'], 5, now(), now(),
       now() + interval '1 h', CASE WHEN n = 2 THEN now() END
FROM generate_series(1, 2) n
"""
RUNNING = """
INSERT INTO job_running (job_id, attempt, worker_id, queue, kind, priority, ready_at, failures,
                         losses, started_at)
SELECT gen_random_uuid(), 1, '00000000-0000-7000-8000-000000000001', 'billing', 'echo', 5, now(),
       0, 0, now()
FROM generate_series(1, 3)
"""


async def test_workers_are_shown_with_what_they_run_and_whether_they_live(
    replica: Replica, session: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await session.execute(WORKERS)
    await session.execute(RUNNING)
    found = [item for page in await pages(replica, "/v1/workers?limit=1") for item in page]
    assert [item["host"] for item in found][1:] == ["host-2", "host-1"]  # the first is the replica
    me, condemned, busy = found
    assert set(me) == {
        *("id", "host", "version", "queues", "kinds", "slots", "running", "started_at"),
        *("last_heartbeat_at", "state"),
    }
    assert (me["state"], me["running"], me["queues"]) == ("live", 0, ["*"])
    assert "echo" in me["kinds"]
    assert (condemned["state"], condemned["running"]) == ("condemned", 0)
    assert (busy["state"], busy["running"], busy["slots"]) == ("live", 3, 5)
    assert busy["queues"] == ["*", "mail-*", "billing", "b*"]


async def test_a_caller_of_some_queues_sees_all_workers_but_no_foreign_names(
    replica: Replica, session: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await session.execute(WORKERS)
    for queues, shown in (
        (["mail*"], ["*", "mail-*"]),
        (["billing"], ["*", "billing"]),
        (["nothing"], ["*"]),
    ):
        items = (await get(replica, "/v1/workers", queues)).json()["items"]
        assert [item["queues"] for item in items[1:]] == [shown, shown]
