"""Every refusal is an RFC 9457 problem."""

import orjson
import pytest

from penstock.api import problems
from penstock.api.problems import PROBLEMS, Fault, Problem, answer, named, problem_of
from penstock.domain.errors import (
    BadRow,
    JobNotFound,
    QueueUnavailable,
    StoreUnavailable,
    WrongState,
)
from tests.api.conftest import Served
from tests.api.wire import call


@pytest.mark.parametrize("slug", PROBLEMS)
def test_each_slug_renders_as_a_problem_document(slug: str) -> None:
    rendered = answer(Problem(slug, "why", faults=[Fault("/a", "b")], members={"more": 1}))
    assert rendered.content_type == "application/problem+json"
    assert isinstance(rendered.body, bytes)
    assert orjson.loads(rendered.body) == {
        "type": f"/problems/{slug}",
        "title": PROBLEMS[slug].title,
        "status": rendered.status,
        "detail": "why",
        "more": 1,
        "errors": [{"pointer": "/a", "detail": "b"}],
    }


@pytest.mark.parametrize(
    ("error", "status", "headers", "members"),
    [
        (JobNotFound(), 404, {}, {}),
        (WrongState("running", "no"), 409, {}, {"state": "running"}),
        (StoreUnavailable("gone"), 503, {"Retry-After": "1"}, {}),
        (StoreUnavailable("x", unknown=True), 503, {"Retry-After": "1"}, {"outcome": "unknown"}),
        (QueueUnavailable("gone"), 503, {"Retry-After": "1"}, {}),
    ],
)
def test_errors_of_the_rooms_behind_have_their_answer(
    error: Exception, status: int, headers: dict[str, str], members: dict[str, str]
) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.status, problem.headers, problem.members) == (status, headers, members)


@pytest.mark.parametrize("error", [BadRow("x"), ValueError("secret"), TimeoutError()])
def test_what_nobody_expected_has_none(error: Exception) -> None:
    assert problem_of(error) is None


def test_why_the_store_is_away_is_not_told() -> None:
    problem = problem_of(StoreUnavailable("password=hunter2 refused"))
    assert problem is not None
    assert "hunter2" not in repr(problem.__dict__)


def test_at_most_a_hundred_fields_are_named() -> None:
    many = named("validation-failed", [Fault(f"/{i}", "x") for i in range(500)])
    assert len(many.faults) == problems.ERRORS_MAX
    assert "more than 100" in many.detail


def test_the_detail_of_a_refusal_says_the_first_fault() -> None:
    assert problems.invalid(Fault("/a", "is x")).detail == "/a: is x"
    assert problems.invalid(Fault("", "is x")).detail == "the body: is x"
    two = problems.invalid(Fault("/a", "is x"), Fault("/b", "is y"))
    assert two.detail == "2 fields are at fault, the first: /a: is x"


def test_a_problem_ends_with_a_line_end() -> None:
    body = problems.answer(problems.not_found()).body
    assert isinstance(body, bytes)
    assert body.endswith(b"}\n")


async def test_each_type_tells_at_its_address_what_it_means(served: Served) -> None:
    async with served() as port:
        for slug, row in PROBLEMS.items():
            told = (await call(port, "GET", f"/problems/{slug}")).json()
            assert told == {
                "type": f"/problems/{slug}",
                "title": row.title,
                "status": row.status,
                "advice": row.advice,
            }
        assert (await call(port, "GET", "/problems/none")).status == 404
