"""Jobs that a handler submits: gathered with every limit, from any thread, numbered by order."""

import threading
from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from penstock.domain import ids
from penstock.domain.ids import JobId
from penstock.domain.workflow import RunIf
from penstock.egress import Egress
from penstock.handlers import Bounds, Context, LogLimits, PermanentError, Services
from tests.handlers.factory import STARTED, context
from tests.support.making import started

WORKFLOW = JobId(bytes(15) + b"w")


class Row(BaseModel):
    n: int


def bounded(**bounds: int) -> Context:
    return Context(STARTED, 0.0, Services(Egress(), Bounds(**bounds)), LogLimits())


def submitted(ctx: Context) -> list[Any]:
    return [orjson.loads(one) for one in ctx.take_submitted()]


def in_workflow(name: str = "fan", **fields: Any) -> Context:
    ctx = context(graph_id=WORKFLOW, **fields)
    ctx.kin = replace(ctx.kin, name=name)
    return ctx


def test_what_is_submitted_is_as_the_api_takes_it() -> None:
    ctx = context()
    one = ctx.submit("echo", Row(n=1), queue="mail", delay_s=2, tags=("a",), unique_key="u")
    other = ctx.submit("sleep", depends_on=[one], run_if=RunIf.ALL_FINISHED)
    assert [one, other] == [ids.text(ids.nth_of(ctx.job.id, n)) for n in (1, 2)]
    assert submitted(ctx) == [
        {
            "kind": "echo",
            "payload": {"n": 1},
            "queue": "mail",
            "delay_s": 2,
            "tags": ["a"],
            "unique_key": "u",
        },
        {"kind": "sleep", "depends_on": [one], "run_if": "all_finished"},
    ]


def test_a_job_of_a_workflow_names_what_it_submits() -> None:
    ctx = in_workflow()
    ctx.submit("echo")
    ctx.submit("echo", name="mine")
    ctx.submit("sleep", depends_on=("mine",))
    assert [one["name"] for one in submitted(ctx)] == ["fan/echo-1", "mine", "fan/sleep-3"]


def test_a_name_that_grew_too_long_begins_anew_with_the_id() -> None:
    ctx = in_workflow("n" * 250)
    ctx.submit("echo")
    (one,) = submitted(ctx)
    assert one["name"] == f"{ctx.job_id}/echo-1"


def test_the_ids_are_the_same_when_the_job_runs_again() -> None:
    job = started()
    ctx, again = (Context(job, 0.0, Services(Egress()), LogLimits()) for _ in range(2))
    assert [ctx.submit("a"), ctx.submit("b")] == [again.submit("b"), again.submit("a")]


def test_a_payload_is_kept_as_it_was_when_it_was_submitted() -> None:
    ctx, payload = context(), [1]
    ctx.submit("echo", payload)
    payload.append(2)
    assert submitted(ctx)[0]["payload"] == [1]


@pytest.mark.parametrize("payload", [float("nan"), object(), 2**60, "\0", {1, 2}])
def test_what_is_no_json_is_refused_at_once(payload: Any) -> None:
    ctx = context()
    with pytest.raises(ValueError, match="is in it"):
        ctx.submit("echo", payload)
    with pytest.raises(ValueError, match="is in it"):
        ctx.submit("echo", tags=payload)
    assert submitted(ctx) == []


def test_a_text_is_no_list_of_names() -> None:
    with pytest.raises(TypeError, match="a list"):
        context().submit("echo", depends_on="fan")


def test_there_may_be_so_many_jobs() -> None:
    ctx = bounded(submit_max=2)
    ctx.submit("echo")
    ctx.submit("echo")
    with pytest.raises(PermanentError, match="2 jobs at most") as raised:
        ctx.submit("echo")
    assert raised.value.type == "children-refused"
    assert len(submitted(ctx)) == 2


def test_they_may_have_so_many_bytes() -> None:
    ctx = bounded(submit_max_bytes=1000)
    ctx.submit("echo", "x" * 800)
    with pytest.raises(PermanentError, match="1000 bytes at most"):
        ctx.submit("echo", "x" * 800)
    assert len(submitted(ctx)) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_what_comes_when_the_attempt_is_over_is_refused(count: int) -> None:
    ctx = context()
    for _ in range(count):
        ctx.submit("echo")
    assert len(ctx.take_submitted()) == count
    with pytest.raises(RuntimeError, match="the attempt is over"):
        ctx.submit("echo")
    assert ctx.take_submitted() == []
    assert len(context().submit("echo")) == 36


def test_threads_may_submit_at_once() -> None:
    ctx = context()
    got: list[str] = []

    def submit() -> None:
        got.extend(ctx.submit("echo", n) for n in range(200))

    threads = [threading.Thread(target=submit) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1000
    assert len(submitted(ctx)) == 1000


def test_what_a_child_process_has_gathered_is_bounded_as_well() -> None:
    ctx = bounded(submit_max=2, submit_max_bytes=100)
    ctx.hear_submitted(['{"kind":"echo"}'])
    with pytest.raises(PermanentError):
        ctx.hear_submitted(["{}"] * 2)
    assert submitted(ctx) == [{"kind": "echo"}, {}]
    over = bounded(submit_max_bytes=100)
    with pytest.raises(PermanentError):
        over.hear_submitted(['"' + "x" * 100 + '"'])
