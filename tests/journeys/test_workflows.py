"""Workflows over HTTP, from submission to their end, against a whole replica."""

from typing import Any

import asyncpg
import pytest

from penstock.server import Replica
from tests.support.api import Api, token
from tests.support.waiting import eventually

FLOWS = "/v1/workflows"
FAIL = {"kind": "fail", "payload": {"retryable": False}}
LATER = {"kind": "echo", "delay_s": 3600}
WAIT = {"Prefer": "wait=20"}

Job = dict[str, Any]


def job(name: str, *depends_on: str, **fields: Any) -> Job:
    parents = {"depends_on": list(depends_on)} if depends_on else {}
    return {"name": name, "kind": "echo", **parents, **fields}


async def submit(
    api: Api, *jobs: Job, headers: dict[str, str] | None = None, **fields: Any
) -> dict[str, Any]:
    body = {"name": "flow", "jobs": list(jobs), **fields}
    status, answer = await api.call("POST", FLOWS, body, headers)
    assert status == 201, answer
    found: dict[str, Any] = answer
    return found


async def ended(api: Api, id_: str) -> dict[str, Any]:
    status, answer = await api.call("GET", f"{FLOWS}/{id_}", headers=WAIT)
    assert status == 200, answer
    assert answer["state"] != "running", answer
    found: dict[str, Any] = answer
    return found


def states(workflow: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["state"] for one in workflow["jobs"]}


async def test_a_diamond_runs_in_its_order_and_hands_results_on(api: Api) -> None:
    begun = await submit(
        api,
        job("a", payload={"rows": [3, 4]}),
        job("b", "a"),
        job("c", "a"),
        job("d", "b", "c"),
    )
    assert states(begun) == {"a": "ready", "b": "blocked", "c": "blocked", "d": "blocked"}
    assert begun["counts"]["blocked"] == 3
    assert [one["depends_on"] for one in begun["jobs"]] == [[], ["a"], ["a"], ["b", "c"]]
    over = await ended(api, begun["id"])
    assert over["state"] == "succeeded"
    assert over["counts"]["succeeded"] == 4
    assert over["finished_at"] is not None
    by_name = {one["name"]: one for one in over["jobs"]}
    for parent, child in ("ab", "ac", "bd", "cd"):
        assert by_name[parent]["finished_at"] <= by_name[child]["started_at"]
    shown = await api.get(f"/v1/jobs/{by_name['d']['id']}")
    assert (shown["workflow_id"], shown["name"]) == (begun["id"], "d")
    assert (shown["depends_on"], shown["run_if"]) == (["b", "c"], "all_succeeded")


async def test_a_submission_may_be_answered_with_the_end(api: Api) -> None:
    async with api.answer(
        "POST", FLOWS, {"name": "w", "jobs": [job("a"), job("b", "a")]}, WAIT
    ) as (answer):
        body = await answer.json()
        assert answer.status == 201
        assert answer.headers["Location"] == f"{FLOWS}/{body['id']}"
        assert answer.headers["Preference-Applied"] == "wait=20"
    assert (body["state"], body["counts"]["succeeded"]) == ("succeeded", 2)


async def test_what_depends_on_a_dead_job_is_skipped_and_a_retry_runs_it(api: Api) -> None:
    begun = await submit(
        api,
        job("good"),
        job("bad", **FAIL),
        job("after", "good", "bad"),
        job("alarm", "bad", run_if="any_failed"),
    )
    over = await ended(api, begun["id"])
    assert over["state"] == "failed"
    assert states(over) == {
        "good": "succeeded",
        "bad": "dead",
        "after": "skipped",
        "alarm": "succeeded",
    }
    (dead,) = over["dead_jobs"]
    assert (dead["name"], dead["kind"], dead["error"]["type"]) == ("bad", "fail", "failed-as-asked")
    path = f"{FLOWS}/{begun['id']}/retry"
    status, plan = await api.call("POST", path, {"dry_run": True})
    assert status == 200
    assert plan == {"dry_run": True, "again": ["bad", "after"], "reused": ["good", "alarm"]}
    assert states(await api.get(f"{FLOWS}/{begun['id']}")) == states(over)
    status, again = await api.call("POST", path)
    assert (status, again["again"], again["reused"]) == (200, ["bad", "after"], ["good", "alarm"])
    assert again["state"] == "running"
    assert (await ended(api, begun["id"]))["state"] == "failed"
    status, problem = await api.call("POST", path, {"from": ["good", "nobody"]})
    assert (status, problem["errors"]) == (
        422,
        [{"pointer": "/from/1", "detail": "there is no job 'nobody'"}],
    )
    status, problem = await api.call("POST", path, {"from": ["good"], "dry_run": 1, "to": []})
    assert status == 422
    assert {error["pointer"] for error in problem["errors"]} == {"/dry_run", "/to"}


async def test_a_cancelled_workflow_ends_as_such_and_only_once(api: Api) -> None:
    begun = await submit(api, job("a", **LATER), job("b", "a"))
    path = f"{FLOWS}/{begun['id']}/cancel"
    status, shown = await api.call("POST", path)
    assert (status, shown["state"], shown["halt"]) == (200, "cancelled", "cancel")
    assert set(states(shown).values()) == {"cancelled"}
    status, problem = await api.call("POST", path)
    assert (status, problem["type"], problem["state"]) == (
        409,
        "/problems/wrong-state",
        "cancelled",
    )
    found = await api.get(f"/v1/jobs/{shown['jobs'][1]['id']}")
    assert found["cancel_reason"] == "requested"


async def test_a_stopping_workflow_cancels_what_has_not_started(api: Api) -> None:
    begun = await submit(
        api,
        job("bad", **FAIL),
        job("later", **LATER),
        job("after", "later"),
        job("clean", "later", run_if="all_finished"),
        on_failure="stop",
    )
    over = await ended(api, begun["id"])
    assert (over["state"], over["halt"]) == ("failed", "stop")
    assert states(over) == {
        "bad": "dead",
        "later": "cancelled",
        "after": "cancelled",
        "clean": "succeeded",
    }
    shown = await api.get(f"/v1/jobs/{over['jobs'][1]['id']}")
    assert shown["cancel_reason"] == "workflow-stopped"


async def test_jobs_join_a_workflow_that_runs(api: Api) -> None:
    begun = await submit(api, job("a"), job("last", **LATER))
    await api.ended(begun["jobs"][0]["id"])
    path = f"{FLOWS}/{begun['id']}/jobs"
    more = {"jobs": [job("b", "a"), job("c", "b", "last"), job("d")]}
    status, added = await api.call("POST", path, more)
    assert status == 201
    assert [one["name"] for one in added["items"]] == ["b", "c", "d"]
    assert [one["state"] for one in added["items"]] == ["ready", "blocked", "ready"]
    shown = await api.get(f"{FLOWS}/{begun['id']}")
    assert [one["name"] for one in shown["jobs"]] == ["a", "last", "b", "c", "d"]
    assert sum(shown["counts"].values()) == 5

    status, problem = await api.call("POST", path, {"jobs": [job("new"), job("a")]})
    assert (status, problem["type"]) == (409, "/problems/name-taken")
    assert [error["pointer"] for error in problem["errors"]] == ["/jobs/1/name"]
    status, problem = await api.call("POST", path, {"jobs": [job("new", "nobody")]})
    assert (status, problem["errors"][0]["pointer"]) == (422, "/jobs/0/depends_on/0")
    status, problem = await api.call("POST", path, {"jobs": [job("x", "a", run_if="all_skipped")]})
    assert (status, problem["errors"][0]["pointer"]) == (422, "/jobs/0/run_if")

    await api.call("POST", f"{FLOWS}/{begun['id']}/cancel")
    status, problem = await api.call("POST", path, {"jobs": [job("late")]})
    assert (status, problem["type"], problem["state"]) == (
        409,
        "/problems/wrong-state",
        "cancelled",
    )
    assert (await api.call("POST", f"{FLOWS}/{begun['jobs'][0]['id']}/jobs", more))[0] == 404


async def test_a_repeated_request_is_answered_with_what_stands_now(api: Api) -> None:
    key = {"Idempotency-Key": "k"}
    body = {"name": "w", "jobs": [job("a"), job("b", "a")]}
    status, first = await api.call("POST", FLOWS, body, key)
    assert status == 201
    await ended(api, first["id"])
    async with api.answer("POST", FLOWS, body, key) as answer:
        again = await answer.json()
        assert answer.status == 201
        assert answer.headers["Idempotent-Replayed"] == "true"
    assert again == await api.get(f"{FLOWS}/{first['id']}")
    assert again["state"] == "succeeded"
    for other in ({**body, "name": "v"}, {**body, "jobs": [job("a")]}):
        status, problem = await api.call("POST", FLOWS, other, key)
        assert (status, problem["type"]) == (422, "/problems/idempotency-key-reuse")
    assert len((await api.get(FLOWS))["items"]) == 1


async def test_repeated_additions_are_answered_again(api: Api) -> None:
    begun = await submit(api, job("a", **LATER))
    path, key = f"{FLOWS}/{begun['id']}/jobs", {"Idempotency-Key": "k"}
    more = {"jobs": [job("b", "a"), job("c")]}
    _, first = await api.call("POST", path, more, key)
    async with api.answer("POST", path, more, key) as answer:
        again = await answer.json()
        assert (answer.status, answer.headers["Idempotent-Replayed"]) == (201, "true")
    assert [one["id"] for one in again["items"]] == [one["id"] for one in first["items"]]
    assert again["items"][0]["state"] == "blocked"
    assert len((await api.get(f"{FLOWS}/{begun['id']}"))["jobs"]) == 3


async def test_a_workflow_in_queues_of_others_is_not_there(api: Api, replica: Replica) -> None:
    mixed = await submit(api, job("a", queue="mail", **LATER), job("b", "a", queue="billing"))
    mine = await submit(api, job("a", queue="mail", **LATER))
    async with Api(replica.url, token("operator", sub="ada", queues=["mail*"])) as ada:
        assert [one["id"] for one in (await ada.get(FLOWS))["items"]] == [mine["id"]]
        assert (await ada.get(f"{FLOWS}/{mine['id']}"))["id"] == mine["id"]
        foreign = f"{FLOWS}/{mixed['id']}"
        assert (await ada.call("GET", foreign))[0] == 404
        for call, body in (("cancel", None), ("retry", None), ("jobs", {"jobs": [job("x")]})):
            assert (await ada.call("POST", f"{foreign}/{call}", body))[0] == 404
        closed = {"name": "w", "jobs": [job("a", queue="mail"), job("b", queue="billing")]}
        status, problem = await ada.call("POST", FLOWS, closed)
        assert (status, problem["type"]) == (403, "/problems/forbidden-queue")
        assert [error["pointer"] for error in problem["errors"]] == ["/jobs/1/queue"]
        inner = job("a", kind="workflow", queue="mail", payload={"jobs": closed["jobs"]})
        cases: list[tuple[str, Any, str]] = [
            (FLOWS, {"name": "w", "jobs": [inner]}, "/jobs/0/payload/jobs/1/queue"),
            ("/v1/jobs", {n: v for n, v in inner.items() if n != "name"}, "/payload/jobs/1/queue"),
        ]
        for path, body, pointer in cases:
            status, problem = await ada.call("POST", path, body)
            assert (status, problem["errors"][0]["pointer"]) == (403, pointer)
        # Its jobs are listed by queue, as all others.
        page = await ada.get(f"/v1/jobs?workflow_id={mixed['id']}")
        assert [one["name"] for one in page["items"]] == ["a"]


async def test_jobs_by_themselves_may_depend_on_others(api: Api, replica: Replica) -> None:
    parent = await api.submit("echo", {"n": 7}, delay_s=1, queue="mail")
    payload = {"got": {"$result": parent, "pointer": "/n"}}
    child = await api.submit("echo", payload, depends_on=[parent.upper()], queue="mail")
    shown = await api.get(f"/v1/jobs/{child}")
    assert (shown["state"], shown["depends_on"], shown["run_if"]) == (
        "blocked",
        [parent],
        "all_succeeded",
    )
    await api.ended(parent)
    assert (await api.ended(child))["state"] == "succeeded"
    late = {"kind": "echo", "depends_on": [parent], "run_if": "any_failed"}
    status, skipped = await api.call("POST", "/v1/jobs", late)
    assert (status, skipped["state"]) == (201, "skipped")
    assert skipped == await api.get(f"/v1/jobs/{skipped['id']}") | {
        "finished_at": skipped["finished_at"]
    }
    ids = await api.submit_many([{"kind": "echo"}, {"kind": "echo", "depends_on": [parent]}])
    assert len(ids) == 2
    async with Api(replica.url, token("submitter", sub="ada", queues=["own"])) as ada:
        nobody = "01a1ee56-5e00-7b62-a3d1-5c2f9f1be0aa"
        body = {"kind": "echo", "queue": "own", "depends_on": [nobody, parent]}
        status, problem = await ada.call("POST", "/v1/jobs", body)
        assert status == 422
        assert [error["pointer"] for error in problem["errors"]] == [
            "/depends_on/0",
            "/depends_on/1",
        ]
        status, problem = await ada.call("POST", "/v1/jobs/batch", {"jobs": [body]})
        assert problem["errors"][1]["pointer"] == "/jobs/0/depends_on/1"


async def test_a_repeated_request_is_answered_though_its_parent_is_gone(api: Api, dsn: str) -> None:
    parent = await api.submit("echo")
    await api.ended(parent)
    body, key = {"kind": "echo", "depends_on": [parent], **LATER}, {"Idempotency-Key": "k"}
    _, first = await api.call("POST", "/v1/jobs", body, key)
    con = await asyncpg.connect(dsn)
    await con.execute("DELETE FROM jobs WHERE job_id = $1", parent)
    await con.close()
    status, again = await api.call("POST", "/v1/jobs", body, key)
    assert (status, again) == (201, first)
    assert (await api.call("POST", "/v1/jobs", body, {"Idempotency-Key": "l"}))[0] == 422


async def test_a_workflow_in_a_job_runs_and_tells_its_holder(api: Api) -> None:
    begun = await submit(
        api,
        job("part", kind="workflow", payload={"jobs": [job("x"), job("y", "x")]}),
        job("after", "part"),
    )
    over = await ended(api, begun["id"])
    assert (over["state"], states(over)) == (
        "succeeded",
        {"part": "succeeded", "after": "succeeded"},
    )
    inner = next(w for w in (await api.get(FLOWS))["items"] if w["id"] != begun["id"])
    part = over["jobs"][0]["id"]
    assert (inner["held_by"], inner["name"], inner["state"]) == (part, part, "succeeded")


async def test_a_dead_job_in_a_nested_workflow_names_the_job_to_retry(api: Api) -> None:
    holder = await api.submit("workflow", {"name": "inner", "jobs": [job("x", **FAIL)]})
    await api.ended(holder)
    (inner,) = (await api.get(f"{FLOWS}?name=inner"))["items"]
    member = (await api.get(f"{FLOWS}/{inner['id']}"))["dead_jobs"][0]["id"]
    for path in (f"/v1/dead-letters/{member}/replay", f"/v1/jobs/{member}/retry"):
        status, problem = await api.call("POST", path)
        assert (status, problem["state"], problem["job_id"]) == (409, "failed", holder)
        assert f"POST /v1/jobs/{holder}/retry" in problem["detail"]
    assert (await api.call("POST", f"/v1/jobs/{holder}/retry"))[0] == 200

    async def tried_again() -> bool:
        found = await api.get(f"/v1/jobs/{member}")
        return bool(found["attempt"] == 2 and found["state"] == "dead")

    await eventually(tried_again, "what was dead in it runs again")
    letters = await api.get(f"/v1/dead-letters?job_id={member}&which=all")
    assert [one["resolution"] for one in letters["items"]] == [None, "retried"]


async def test_results_reach_a_workflow_in_a_job(api: Api) -> None:
    inner = {
        "name": "inner",
        "jobs": [
            job("x", payload={"$result": "a", "pointer": "/n"}),
            job("y", "x", payload=[{"$result": "x"}]),
        ],
    }
    begun = await submit(
        api, job("a", payload={"n": 5}), job("part", "a", kind="workflow", payload=inner)
    )
    assert (await ended(api, begun["id"]))["state"] == "succeeded"
    (found,) = (await api.get(f"{FLOWS}?name=inner"))["items"]
    jobs = (await api.get(f"/v1/jobs?workflow_id={found['id']}&include=result"))["items"]
    assert {one["name"]: one["result"] for one in jobs} == {"x": 5, "y": [5]}


async def test_lists_filter_and_page(api: Api) -> None:
    made = [(await submit(api, job("a"), name=f"w{n % 2}"))["id"] for n in range(5)]
    for id_ in made:
        await ended(api, id_)
    running = (await submit(api, job("a", **LATER), job("b", "a"), name="w1"))["id"]
    page = await api.get(f"{FLOWS}?limit=4")
    assert [one["id"] for one in page["items"]] == [running, *made[:1:-1]]
    assert page["items"][0]["counts"] | {"blocked": 1, "scheduled": 1} == page["items"][0]["counts"]
    rest = await api.get(f"{FLOWS}?limit=4&cursor={page['next_cursor']}")
    assert [one["id"] for one in rest["items"]] == [made[1], made[0]]
    assert rest["next_cursor"] is None
    for query, wanted in (
        ("state=running", [running]),
        ("state=succeeded&name=w1", [made[3], made[1]]),
        ("name=w1", [running, made[3], made[1]]),
        ("state=failed&state=cancelled", []),
    ):
        found = await api.get(f"{FLOWS}?{query}")
        assert [one["id"] for one in found["items"]] == wanted, query
    assert (await api.call("GET", f"{FLOWS}?state=dead"))[0] == 400
    assert (await api.call("GET", f"{FLOWS}?cursor={page['next_cursor']}&name=w1"))[0] == 400
    jobs = await api.get(f"/v1/jobs?workflow_id={running}&state=blocked")
    assert [one["name"] for one in jobs["items"]] == ["b"]
    assert (await api.call("GET", "/v1/jobs?workflow_id=7"))[0] == 400
    assert (await api.get("/v1/queues/default"))["counts"]["blocked"] == 1


@pytest.mark.parametrize("path", ["/v1/workflows/7", "/v1/workflows/7/cancel"])
async def test_what_is_no_id_is_not_found(api: Api, path: str) -> None:
    method = "POST" if path.endswith("cancel") else "GET"
    assert (await api.call(method, path))[0] == 404


async def test_ten_thousand_jobs_are_taken_in_and_shown(api: Api) -> None:
    wide = [job(f"n{i}", "root") for i in range(9_998)]
    begun = await submit(
        api, job("root", **LATER), *wide, job("end", *(f"n{i}" for i in range(9_998)))
    )
    assert begun["counts"]["blocked"] == 9_999
    shown = await api.get(f"{FLOWS}/{begun['id']}")
    assert shown["jobs"] == begun["jobs"]
    assert len(shown["jobs"][-1]["depends_on"]) == 9_998
    (listed,) = (await api.get(f"/v1/jobs?workflow_id={begun['id']}&limit=1"))["items"]
    assert len(listed["depends_on"]) == 9_998
    _, over = await api.call("POST", f"{FLOWS}/{begun['id']}/cancel")
    assert over["counts"]["cancelled"] == 10_000
