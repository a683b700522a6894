"""What the engine makes of JSON by itself: held to what the door holds a caller's to."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from penstock.api.door import Door
from penstock.api.intake import Within
from penstock.domain.defaults import Book, Defaults
from penstock.domain.ids import JobId, text
from penstock.domain.job import NewJob
from penstock.domain.terms import Terms
from penstock.domain.workflow import LOOSE, OnFailure
from tests.support import making


@pytest.fixture
def within(door: Door) -> Within:
    terms = Terms(Book(Defaults(priority=2)))
    return Within(lambda: replace(door.recipe, terms=terms))


def flow(**fields: Any) -> str:
    jobs = [{"name": "a", "kind": "echo"}, {"name": "b", "kind": "sum", "depends_on": ["a"]}]
    return orjson.dumps({"jobs": jobs, **fields}).decode()


def test_the_payload_of_a_started_job_becomes_a_workflow(within: Within) -> None:
    job = making.started(
        kind="workflow", payload=flow(), created_by="ada", traceparent="00-aa-bb-01"
    )
    made = within.workflow(job)
    assert made.workflow is not None
    assert (made.workflow.name, made.workflow.holder) == (text(job.id), job.id)
    assert (made.workflow.created_by, made.workflow.traceparent) == ("ada", "00-aa-bb-01")
    a, b = made.jobs
    assert b.parents == (a.id,)
    assert (a.priority, a.created_by, a.traceparent) == (2, "ada", "00-aa-bb-01")
    assert a.workflow_id == made.workflow.id
    named = within.workflow(replace(job, payload=flow(name="n", on_failure="stop"))).workflow
    assert named is not None
    assert (named.name, named.on_failure) == ("n", OnFailure.STOP)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("null", "it: must be a workflow, as POST /v1/workflows takes it"),
        ('{"jobs": []}', "/jobs: must have 1 to 10000 jobs, has 0"),
        ('{"jobs": [1], "x": 2}', "/x: is not a known field"),
        ('{"jobs": [{"name": "a"}]}', "/jobs/0/kind: is required"),
        (
            '{"jobs": [{"name": "a", "kind": "echo", "depends_on": ["a", "b"]}]}',
            "/jobs/0/depends_on/0: is the job itself; /jobs/0/depends_on/1: there is no job 'b'",
        ),
    ],
)
def test_what_is_wrong_with_it_is_said(within: Within, payload: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^.") as caught:
        within.workflow(making.started(kind="workflow", payload=payload))
    assert str(caught.value) == said


def test_a_crowd_of_faults_is_cut(within: Within) -> None:
    payload = orjson.dumps({"jobs": [{"name": str(n)} for n in range(500)]}).decode()
    with pytest.raises(ValueError, match=r"; and \d+ more$"):
        within.workflow(making.started(payload=payload))


def test_an_expiry_that_has_passed_is_for_the_expirer(within: Within) -> None:
    late = {"name": "a", "kind": "echo", "expires_at": "2020-01-01T00:00:00Z"}
    (job,) = within.workflow(making.started(payload=orjson.dumps({"jobs": [late]}).decode())).jobs
    assert job.expires_at is not None


def children(within: Within, graph_id: JobId | None, *bodies: Any) -> list[NewJob]:
    made = within.children(making.started(graph_id=graph_id, created_by="ada"), bodies)
    assert made.into == (None if graph_id in (None, LOOSE) else graph_id)
    return list(made.jobs)


def test_children_in_a_workflow_go_by_name(within: Within) -> None:
    of = making.job_id()
    a, b = children(
        within,
        of,
        {"name": "a", "kind": "echo", "depends_on": ["old"]},
        {"name": "b", "kind": "echo", "depends_on": ["a"], "run_if": "all_finished"},
    )
    assert (a.workflow_id, a.depends_on, b.depends_on) == (of, ("old",), ("a",))
    assert (b.run_if, a.created_by) == ("all_finished", "ada")
    with pytest.raises(ValueError, match=r"^/jobs/0/name: is required$"):
        children(within, of, {"kind": "echo"})
    with pytest.raises(ValueError, match="makes a cycle: a -> b -> a"):
        children(
            within,
            of,
            {"name": "a", "kind": "echo", "depends_on": ["b"]},
            {"name": "b", "kind": "echo", "depends_on": ["a"]},
        )


@pytest.mark.parametrize("graph_id", [None, LOOSE])
def test_children_elsewhere_go_by_ids(within: Within, graph_id: JobId | None) -> None:
    parent = making.job_id()
    (job,) = children(within, graph_id, {"kind": "echo", "depends_on": [text(parent)]})
    assert (job.parents, job.workflow_id, job.name) == ((parent,), None, None)
    with pytest.raises(ValueError, match=r"^/jobs/1/name: names, .* only in a workflow"):
        children(within, graph_id, {"kind": "echo"}, {"kind": "echo", "name": "x"})
    with pytest.raises(ValueError, match=r"^/jobs/0/depends_on/0: names work only in a workflow"):
        children(within, graph_id, {"kind": "echo", "depends_on": ["x"]})
    with pytest.raises(ValueError, match=r"^/jobs/0/payload: has a NUL in it$"):
        children(within, graph_id, {"kind": "echo", "payload": "\0"})
