"""The judge of answers finds what is not as documented."""

from typing import Any

import orjson
import pytest

from tests.support.contract import contract

HEADERS = {"X-Request-Id": "abc", "Content-Type": "application/json"}
LIVE = {"live": True}


def check(
    path: str = "/livez",
    *,
    status: int = 200,
    body: Any = LIVE,
    headers: dict[str, str] | None = None,
    method: str = "GET",
) -> None:
    contract().check(method, path, status, headers or HEADERS, orjson.dumps(body))


def test_a_documented_answer_passes() -> None:
    check()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"status": 201}, "not in the document"),
        ({"body": {"live": False}}, "not as the document says"),
        ({"body": {"live": True, "colour": 1}}, "colour"),
        ({"body": {}}, "live"),
        ({"headers": {"Content-Type": "application/json"}}, "lacks the headers"),
        ({"headers": HEADERS | {"X-Colour": "red"}}, "doesn't name"),
        ({"headers": HEADERS | {"Content-Type": "text/plain"}}, "text/plain"),
        ({"path": "/nowhere"}, "not-found|lacks|json"),
        ({"method": "POST"}, "lacks the headers"),
        ({"path": "/v1/queues", "body": {"items": [], "next_cursor": 1}}, "next_cursor"),
    ],
)
def test_what_is_not_documented_fails(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check(**wrong)


def test_a_request_that_the_document_does_not_know_fails() -> None:
    contract().check_accepted("POST", "/v1/jobs", {"kind": "echo"})
    contract().check_accepted("POST", "/v1/jobs/x/cancel", None)
    with pytest.raises(AssertionError, match="colour"):
        contract().check_accepted("POST", "/v1/jobs", {"kind": "echo", "colour": 1})
    with pytest.raises(AssertionError, match="parameters"):
        contract().check_accepted("GET", "/v1/queues?colour=red", None)
    with pytest.raises(AssertionError, match="the document says none"):
        contract().check_accepted("POST", "/v1/jobs/x/cancel", {"why": "so"})
