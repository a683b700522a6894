"""Dead letters over HTTP: what died, replays with changes and by filter, discards."""

from typing import Any

import pytest

from penstock.server import Replica
from tests.support.api import Api, token
from tests.support.waiting import eventually

DEAD = "/v1/dead-letters"


async def died(api: Api, kind: str = "fail", payload: Any = None, **fields: Any) -> str:
    payload = {"retryable": False} if payload is None else payload
    id_ = await api.submit(kind, payload, **fields)
    assert (await api.ended(id_))["state"] == "dead"
    return id_


async def open_ids(api: Api, query: str = "") -> list[str]:
    return [one["job_id"] for one in (await api.get(f"{DEAD}?{query}"))["items"]]


async def letter(api: Api, id_: str) -> Any:
    (found,) = [
        one for one in (await api.get(f"{DEAD}?which=all"))["items"] if one["job_id"] == id_
    ]
    return found


async def refused(api: Api, method: str, path: str, body: Any, status: int, slug: str) -> Any:
    got, problem = await api.call(method, path, body)
    assert (got, problem["type"]) == (status, f"/problems/{slug}"), problem
    return problem


async def test_what_died_is_listed_with_its_failure(api: Api) -> None:
    first = await died(api, payload={"type": "Odd", "message": "so", "retryable": False})
    second = await died(api, queue="mail")
    assert await open_ids(api) == [second, first]
    assert await open_ids(api, "queue=mail") == [second]
    assert await open_ids(api, "kind=fail&error_type=Odd") == [first]
    assert await open_ids(api, "kind=echo") == []
    found = await letter(api, first)
    assert (found["error"]["type"], found["error"]["message"]) == ("Odd", "so")
    assert (found["error_type"], found["attempt"], found["delivery"]) == ("Odd", 1, "none")
    assert await open_ids(api, f"fingerprint={found['fingerprint']}") == [first]
    page = await api.get(f"{DEAD}?limit=1")
    rest = await api.get(f"{DEAD}?limit=1&cursor={page['next_cursor']}")
    assert [one["job_id"] for one in page["items"] + rest["items"]] == [second, first]


@pytest.mark.parametrize(
    "query",
    ["states=dead", "fingerprint=x", "which=none", "limit=0", "cursor=x", "which=all&which=all"],
)
async def test_a_query_with_a_typo_is_refused(api: Api, query: str) -> None:
    status, _ = await api.call("GET", f"{DEAD}?{query}")
    assert status == 400


async def test_what_is_alike_is_a_group(api: Api) -> None:
    odd = {"type": "Odd", "retryable": False}
    ids = [await died(api, payload=odd) for _ in range(3)]
    other = await died(api)
    groups = (await api.get(f"{DEAD}/groups"))["items"]
    assert [(one["count"], one["sample"]["job_id"]) for one in groups] == [(1, other), (3, ids[2])]
    assert groups[1]["error_type"] == "Odd"
    page = await api.get(f"{DEAD}/groups?limit=1")
    rest = await api.get(f"{DEAD}/groups?limit=1&cursor={page['next_cursor']}")
    assert page["items"] + rest["items"] == groups
    assert rest["next_cursor"] is None
    assert [one["count"] for one in (await api.get(f"{DEAD}/groups?error_type=Odd"))["items"]] == [
        3
    ]


async def test_the_letters_of_a_job_or_a_workflow_are_found(api: Api) -> None:
    alone = await died(api)
    jobs = [
        {"name": name, "kind": "fail", "payload": {"retryable": False, "type": name.upper()}}
        for name in ("a", "b")
    ]
    body = {"name": "w", "jobs": jobs}
    _, flow = await api.call("POST", "/v1/workflows", body, {"Prefer": "wait=10"})
    members = {one["id"] for one in flow["jobs"]}
    member = flow["jobs"][0]["id"]
    assert await open_ids(api, f"job_id={alone}") == [alone]
    of_flow = f"workflow_id={flow['id']}"
    assert set(await open_ids(api, of_flow)) == members
    assert await open_ids(api, f"{of_flow}&error_type=A") == [member]
    assert await open_ids(api, f"{of_flow}&job_id={member}") == [member]
    assert await open_ids(api, f"{of_flow}&job_id={alone}") == []
    page = await api.get(f"{DEAD}?{of_flow}&limit=1")
    rest = await api.get(f"{DEAD}?{of_flow}&limit=1&cursor={page['next_cursor']}")
    assert {one["job_id"] for one in page["items"] + rest["items"]} == members
    assert rest["next_cursor"] is None
    for query, kinds in ((of_flow, {"A", "B"}), (f"job_id={alone}", {"failed-as-asked"})):
        groups = await api.get(f"{DEAD}/groups?{query}")
        assert {one["error_type"] for one in groups["items"]} == kinds
        assert groups["truncated"] is False
    await api.call("POST", f"{DEAD}/{alone}/replay")
    await api.ended(alone)

    async def both() -> Any:
        found = await api.get(f"{DEAD}?job_id={alone}&which=all")
        return found["items"] if len(found["items"]) == 2 else None

    second, first = await eventually(both, "it dies again")
    assert (second["attempt"], first["attempt"]) == (2, 1)
    assert await open_ids(api, f"job_id={alone}&which=resolved") == [alone]
    assert (await api.get(f"{DEAD}/groups?job_id={alone}"))["items"][0]["count"] == 1


async def test_a_replay_is_a_new_life_and_the_history_is_kept(api: Api) -> None:
    id_ = await died(api)
    status, job = await api.call("POST", f"{DEAD}/{id_}/replay")
    assert (status, job["id"], job["failures"]) == (200, id_, 0)
    await api.ended(id_)

    async def twice() -> Any:
        found = (await api.get(f"{DEAD}?which=all"))["items"]
        return found if len(found) == 2 else None

    second, first = await eventually(twice, "it dies again")
    assert (first["resolution"], first["resolved_by"]) == ("replayed", "tests")
    assert (second["attempt"], second["resolved_at"]) == (2, None)
    assert await open_ids(api) == [id_]


async def test_a_replay_with_another_payload_and_queue(api: Api) -> None:
    id_ = await died(api, "http", {"method": "GET", "url": f"{api.url}/nowhere"})
    new = {"payload": {"method": "GET", "url": api.url + "/livez"}, "queue": "mended"}
    status, _ = await api.call("POST", f"{DEAD}/{id_}/replay", new)
    assert status == 200
    job = await api.ended(id_)
    assert (job["state"], job["queue"], job["payload"]) == ("succeeded", "mended", new["payload"])
    assert (await api.get("/v1/queues/mended"))["counts"]["succeeded"] == 1
    assert (await api.get("/v1/queues/default"))["counts"]["dead"] == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"payload": {"method": "GET"}}, "/payload/url"),
        ({"payload": {"method": "GET", "url": "http://127.0.0.1/\0"}}, "/payload/url"),
        ({"queue": "NO"}, "/queue"),
        ({"queue": None}, "/queue"),
        ({"pay": 1}, "/pay"),
    ],
)
async def test_a_bad_change_is_refused_and_nothing_happens(
    api: Api, body: Any, pointer: str
) -> None:
    id_ = await died(api, "http", {"method": "GET", "url": f"{api.url}/nowhere"})
    problem = await refused(api, "POST", f"{DEAD}/{id_}/replay", body, 422, "validation-failed")
    assert problem["errors"][0]["pointer"] == pointer
    assert (await api.get(f"/v1/jobs/{id_}"))["state"] == "dead"
    assert await open_ids(api) == [id_]


async def test_a_nested_workflow_goes_on_as_it_is(api: Api) -> None:
    payload = {"jobs": [{"name": "a", "kind": "fail", "max_attempts": 1}]}
    id_ = await died(api, "workflow", payload)
    body = {"payload": {"jobs": [{"name": "a", "kind": "echo"}]}}
    problem = await refused(api, "POST", f"{DEAD}/{id_}/replay", body, 422, "validation-failed")
    assert problem["errors"][0]["pointer"] == "/payload"


async def test_a_replay_to_a_foreign_queue_is_forbidden(replica: Replica, api: Api) -> None:
    id_ = await died(api, queue="own")
    async with Api(replica.url, token("operator", queues=["own"])) as operator:
        path = f"{DEAD}/{id_}/replay"
        await refused(operator, "POST", path, {"queue": "other"}, 403, "forbidden-queue")


async def test_a_job_that_is_alive_or_unknown_is_not_replayed(api: Api) -> None:
    alive = await api.submit("echo", delay_s=3600)
    await refused(api, "POST", f"{DEAD}/{alive}/replay", None, 409, "wrong-state")
    await refused(api, "DELETE", f"{DEAD}/{alive}", None, 409, "wrong-state")
    await api.call("POST", f"/v1/jobs/{alive}/cancel")
    problem = await refused(api, "POST", f"{DEAD}/{alive}/replay", None, 409, "wrong-state")
    assert problem["state"] == "cancelled"
    assert problem["detail"].startswith("the job is cancelled; it has no dead letter")
    nobody = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"
    await refused(api, "POST", f"{DEAD}/{nobody}/replay", None, 404, "not-found")
    await refused(api, "DELETE", f"{DEAD}/{nobody}", None, 404, "not-found")


async def test_a_discarded_letter_is_closed_and_its_job_stays_dead(api: Api) -> None:
    id_ = await died(api)
    status, found = await api.call("DELETE", f"{DEAD}/{id_}")
    assert (status, found["resolution"], found["resolved_by"]) == (200, "discarded", "tests")
    assert await open_ids(api) == []
    assert await open_ids(api, "which=resolved") == [id_]
    await refused(api, "DELETE", f"{DEAD}/{id_}", None, 409, "wrong-state")
    await refused(api, "POST", f"{DEAD}/{id_}/replay", None, 409, "wrong-state")
    assert (await api.get(f"/v1/jobs/{id_}"))["state"] == "dead"
    status, _ = await api.call("POST", f"/v1/jobs/{id_}/retry")
    assert status == 200


async def test_a_plain_retry_resolves_the_letter(api: Api) -> None:
    id_ = await died(api)
    await api.call("POST", f"/v1/jobs/{id_}/retry")
    found = (await api.get(f"{DEAD}?which=resolved"))["items"]
    assert [(one["job_id"], one["resolution"], one["resolved_by"]) for one in found] == [
        (id_, "retried", "tests")
    ]


async def test_a_workflows_death_is_replayed_within_it(api: Api) -> None:
    jobs = [
        {"name": "a", "kind": "fail", "payload": {"retryable": False}},
        {"name": "b", "kind": "echo", "depends_on": ["a"]},
    ]
    body = {"name": "w", "jobs": jobs}
    _, flow = await api.call("POST", "/v1/workflows", body, {"Prefer": "wait=10"})
    assert flow["state"] == "failed"
    (id_,) = await open_ids(api)
    status, job = await api.call("POST", f"{DEAD}/{id_}/replay", {"queue": "mended"})
    assert (status, job["queue"]) == (200, "mended")

    async def over_again() -> Any:
        found = await api.get(f"/v1/workflows/{flow['id']}")
        return found if found["state"] == "failed" and found["jobs"][0]["attempt"] == 2 else None

    await eventually(over_again, "the workflow fails again")
    _, told = await api.call("POST", f"/v1/workflows/{flow['id']}/retry")
    assert told["again"] == ["a", "b"]
    history = [one["resolution"] for one in (await api.get(f"{DEAD}?which=all"))["items"]]
    assert history[-2:] == ["retried", "replayed"]


async def test_many_are_replayed_by_filter(api: Api) -> None:
    mail = [
        await died(api, queue="mail", payload={"type": "Odd", "retryable": False}) for _ in range(3)
    ]
    other = await died(api)
    wanted = {"filter": {"queue": ["mail"], "error_type": ["Odd"]}}
    status, told = await api.call("POST", f"{DEAD}/replay", {**wanted, "dry_run": True})
    assert (status, told["matched"], told["replayed"], told["more"]) == (200, 3, 0, False)
    assert [one["job_id"] for one in told["sample"]] == mail[::-1]
    await api.call("POST", "/v1/queues/mail/pause")
    status, told = await api.call("POST", f"{DEAD}/replay", {**wanted, "rate_per_s": 0.01})
    assert (status, told["matched"], told["replayed"], told["sample"]) == (200, 3, 3, [])
    assert await open_ids(api) == [other]
    states = [(await api.get(f"/v1/jobs/{id_}"))["state"] for id_ in mail]
    assert states == ["ready", "scheduled", "scheduled"]


async def test_all_are_replayed_once_though_they_die_again(api: Api) -> None:
    for _ in range(3):
        await died(api)
    body = {"name": "w", "jobs": [{"name": "a", "kind": "fail", "payload": {"retryable": False}}]}
    await api.call("POST", "/v1/workflows", body, {"Prefer": "wait=10"})
    _, told = await api.call("POST", f"{DEAD}/replay", {"filter": {}})
    assert (told["matched"], told["replayed"], told["more"]) == (4, 4, False)


async def test_what_cant_run_again_is_named_with_what_is_in_its_way(api: Api) -> None:
    first, second = [await died(api, unique_key="k") for _ in range(2)]
    fine = await died(api)
    holder = await api.submit("echo", unique_key="k", delay_s=3600)
    jobs = [
        {"name": "a", "kind": "fail", "payload": {"retryable": False}},
        {"name": "b", "kind": "fail", "payload": {"retryable": False}, "unique_key": "k2"},
    ]
    await api.call("POST", "/v1/workflows", {"name": "w", "jobs": jobs}, {"Prefer": "wait=10"})
    await api.submit("echo", unique_key="k2", delay_s=3600)
    _, told = await api.call("POST", f"{DEAD}/replay", {"filter": {}})
    assert (told["matched"], told["replayed"], told["failed"]) == (5, 2, 3)
    by_job = {one["job_id"]: one for one in told["failures"]}
    assert len(by_job) == 3
    assert fine not in by_job
    for id_ in (first, second):
        assert by_job[id_]["type"] == "/problems/duplicate-job"
        assert holder in by_job[id_]["detail"]


async def test_who_sees_some_queues_replays_only_those(replica: Replica, api: Api) -> None:
    own, foreign = await died(api, queue="own"), await died(api, queue="foreign")
    async with Api(replica.url, token("operator", queues=["own"])) as operator:
        assert await open_ids(operator) == [own]
        assert await open_ids(operator, "queue=foreign") == []
        (group,) = (await operator.get(f"{DEAD}/groups"))["items"]
        assert (group["count"], group["sample"]["job_id"]) == (1, own)
        await refused(operator, "POST", f"{DEAD}/{foreign}/replay", None, 404, "not-found")
        _, told = await operator.call("POST", f"{DEAD}/replay", {"filter": {}, "dry_run": True})
        assert (told["matched"], [one["job_id"] for one in told["sample"]]) == (1, [own])
        filter_ = {"filter": {"queue": ["foreign"]}}
        _, told = await operator.call("POST", f"{DEAD}/replay", filter_)
        assert told["matched"] == 0
    assert foreign in await open_ids(api)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"filter": None},
        {"filter": {"queues": ["a"]}},
        {"filter": {"queue": "a"}},
        {"filter": {"fingerprint": ["x"]}},
        {"filter": {}, "rate_per_s": 0},
        {"filter": {}, "dryrun": True},
    ],
)
async def test_a_filter_with_a_typo_replays_nothing(api: Api, body: Any) -> None:
    id_ = await died(api)
    status, _ = await api.call("POST", f"{DEAD}/replay", body)
    assert status in (415, 422)
    assert await open_ids(api) == [id_]
