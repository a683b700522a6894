"""Whose references are whose in the payload of a job of kind `workflow`."""

import copy
from typing import Any

import pytest

from penstock.domain import nesting
from penstock.domain.references import references, replaced

REF = {"$result": "p"}

FLOW: dict[str, Any] = {
    "jobs": [
        {"name": "root", "kind": "echo", "payload": [REF]},
        {"name": "child", "kind": "echo", "depends_on": ["root"], "payload": {"$result": "root"}},
        {
            "name": "flow",
            "kind": "workflow",
            "payload": {
                "jobs": [
                    {"name": "x", "kind": "echo", "payload": REF},
                    {"name": "y", "kind": "echo", "depends_on": ["x"], "payload": [REF]},
                ]
            },
        },
    ]
}


def test_references_of_inner_children_are_left_to_them() -> None:
    payload = copy.deepcopy(FLOW)
    aside = nesting.set_aside(payload)
    found = [one.at for one in references(payload)]
    assert found == ["/jobs/0/payload/0", "/jobs/2/payload/jobs/0/payload"]
    payload = replaced(payload, lambda _: 7)
    nesting.put_back(aside)
    jobs = payload["jobs"]
    assert [jobs[0]["payload"], jobs[1]["payload"]] == [[7], {"$result": "root"}]
    assert [job["payload"] for job in jobs[2]["payload"]["jobs"]] == [7, [REF]]


@pytest.mark.parametrize("value", [None, [], {"jobs": 7}, {"jobs": [1, {"kind": "workflow"}]}])
def test_anything_may_be_looked_at(value: Any) -> None:
    assert nesting.set_aside(value) == []


def test_what_lies_inside() -> None:
    assert nesting.is_inside("/jobs/0/payload")
    assert nesting.is_inside("/jobs/0/payload/a/b")
    for at in ("", "/jobs", "/jobs/0", "/jobs/0/name", "/name/0/payload"):
        assert not nesting.is_inside(at), at
