"""The table of routes and the tree that finds them."""

import pytest

from penstock.api.ask import Ask
from penstock.api.problems import Problem
from penstock.api.routes import ROUTES, Route, Table


async def nothing(_ask: Ask) -> None:
    """A handler that is never called."""


def route(method: str, path: str) -> Route:
    return Route(method, path, None, nothing)  # type: ignore[arg-type]  # it is never called


TABLE = Table(
    [
        route("GET", "/a"), route("POST", "/a"), route("POST", "/a/new"), route("GET", "/a/{id}"),
        route("POST", "/a/{id}/stop"), route("GET", "/b/c"),
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "found", "varying"),
    [
        ("GET", "/a", "/a", ""),
        ("POST", "/a", "/a", ""),
        ("POST", "/a/new", "/a/new", ""),
        ("GET", "/a/x", "/a/{id}", "x"),
        ("GET", "/a/{}", "/a/{id}", "{}"),
        ("GET", "/a/{id}", "/a/{id}", "{id}"),
        ("GET", "/a/%C3%BC", "/a/{id}", "ü"),
        ("GET", "/a/x%2Fstop", "/a/{id}", "x/stop"),
        ("POST", "/a/x/stop", "/a/{id}/stop", "x"),
        ("POST", "/a/{}/stop", "/a/{id}/stop", "{}"),
        ("GET", "/%62/c", "/b/c", ""),
    ],
)
def test_a_path_finds_its_route(method: str, path: str, found: str, varying: str) -> None:
    route, key = TABLE.find(method, path)
    assert (route.method, route.path, key) == (method, found, varying)


@pytest.mark.parametrize("path", ["/", "/b", "/b/", "/b/{}", "/a/x/go", "/a/x/stop/", "//a", "/c"])
def test_another_path_is_not_found(path: str) -> None:
    with pytest.raises(Problem, match="not-found"):
        TABLE.find("GET", path)


def test_a_literal_segment_goes_before_the_varying_one() -> None:
    with pytest.raises(Problem) as refused:
        TABLE.find("GET", "/a/new")
    assert refused.value.headers == {"Allow": "POST"}


def test_all_methods_of_a_path_are_named() -> None:
    with pytest.raises(Problem) as refused:
        TABLE.find("DELETE", "/a")
    assert refused.value.headers == {"Allow": "GET, POST"}


def test_no_call_is_in_the_table_twice() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_each_call_that_may_change_something_has_an_action_of_its_own_in_the_audit_log() -> None:
    changing = {route.path for route in ROUTES if route.method != "GET"}
    told = [route.action for route in ROUTES if route.action is not None]
    assert {route.path for route in ROUTES if route.action is not None} == changing, (
        "name the action in domain/audit_log.py and in _ACTIONS of api/routes.py"
    )
    assert len(set(told)) == len(told)
