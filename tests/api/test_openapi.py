"""The document says what the door does, and nothing else."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from penstock.api import openapi
from penstock.api.door import Door, Limits
from penstock.api.openapi_calls import CALLS, TAGS
from penstock.api.problems import PROBLEMS
from penstock.api.routes import ROUTES
from penstock.domain.caller import GRANTS, Role
from tests.api.conftest import Served
from tests.api.wire import call
from tests.support.api import Api
from tests.support.contract import closed
from tests.support.letterbox import opened

DOCUMENT = openapi.document(ROUTES, Limits())
OPERATIONS = {
    (method.upper(), path): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method != "parameters"
}


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in the document."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from walk(one)
    elif isinstance(value, list):
        for one in value:
            yield from walk(one)


def resolved(value: dict[str, Any]) -> Any:
    found: Any = value
    while "$ref" in found and len(found) == 1:
        place = found["$ref"].removeprefix("#/").split("/")
        found = DOCUMENT
        for step in place:
            found = found[step]
    return found


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every media type of every request and response that has a schema, with where it stands."""
    for (method, path), operation in OPERATIONS.items():
        bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for name, body in bodies.items():
            for media, content in resolved(body).get("content", {}).items():
                yield f"{method} {path} {name} {media}", content


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    validate(DOCUMENT)


def test_every_route_is_documented_and_every_documented_call_is_a_route() -> None:
    lacking = [route.path for route in ROUTES if route.handler not in CALLS]
    assert not lacking, f"add rows to openapi_calls.CALLS for {lacking}"
    assert set(OPERATIONS) == {(route.method, route.path) for route in ROUTES}
    assert set(CALLS) == {route.handler for route in ROUTES}, "a row describes no route"


def test_every_problem_has_its_advice_and_a_call_that_it_answers() -> None:
    assert all(row.advice.endswith(".") for row in PROBLEMS.values())
    named = {
        slug
        for name in DOCUMENT["components"]["responses"]
        for slug in re.split(r"-or-(?=\w)", name)
    }
    assert named == set(PROBLEMS), "name it in a call's problems, or in a group of openapi_problems"


def test_security_is_that_of_the_table_of_routes() -> None:
    for route in ROUTES:
        operation = OPERATIONS[route.method, route.path]
        assert operation["security"] == ([{"token": [route.role]}] if route.role else [])
        assert operation.get("x-required-role") == route.role
        for role in Role:
            may = route.role is not None and route.role in GRANTS[role]
            assert (f"`{role}`" in operation["description"].rpartition("\n\n")[2]) == may, role


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_operation_says_what_it_is_for(route: Any) -> None:
    operation = OPERATIONS[route.method, route.path]
    assert re.fullmatch(r"[a-z][A-Za-z]+", operation["operationId"])
    assert operation["tags"][0] in TAGS
    assert operation["summary"]
    assert operation["description"].endswith((".", ")."))
    assert any(status.startswith("2") for status in operation["responses"])


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


def test_every_field_of_every_schema_says_what_it_means() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, said in schema.get("properties", {}).items():
            whole = resolved({"$ref": said["$ref"]}) if "$ref" in said else {}
            in_words = said.get("description") or whole.get("description")
            assert in_words or field in ("items", "type"), f"{name}.{field}: say what it means"


def test_every_parameter_says_what_it_means() -> None:
    for operation in OPERATIONS.values():
        for parameter in operation["parameters"]:
            assert resolved(parameter)["description"], (operation["operationId"], parameter)


def test_patterns_are_such_as_javascript_reads() -> None:
    """ECMA 262 has no \\A, \\Z, inline flags, named groups of Python, or possessive quantifiers."""
    patterns = [one["pattern"] for one in walk(DOCUMENT) if isinstance(one.get("pattern"), str)]
    assert patterns
    for pattern in patterns:
        assert not re.search(r"\\[AZz]|\(\?[aiLmsux#P(<]|[*+?}]\+", pattern), pattern
        assert pattern.startswith("^"), f"{pattern} finds its form anywhere in the text"
        assert pattern.endswith("$"), f"{pattern} finds its form anywhere in the text"


def test_every_answer_and_every_request_has_an_example_that_is_valid() -> None:
    components = closed(DOCUMENT["components"])
    found = 0
    for where, content in contents():
        if "json" not in where.rpartition(" ")[2]:
            continue
        examples = [one["value"] for one in content.get("examples", {}).values()]
        examples += [content["example"]] if "example" in content else []
        assert examples, f"{where} has no example"
        schema = {**closed(content["schema"]), "components": components}
        judge = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for example in examples:
            found += 1
            assert not [str(e) for e in judge.iter_errors(example)], where
    assert found > 50


def test_examples_of_parameters_are_valid() -> None:
    for one in walk(DOCUMENT):
        if "in" in one and "schema" in one and "example" in one:
            judge = jsonschema_rs.Draft202012Validator(one["schema"], validate_formats=True)
            assert judge.is_valid(one["example"]), one


async def test_examples_of_requests_are_accepted(api: Api, dsn: str) -> None:
    async with opened(dsn) as box:
        await box.fails("9f86d081884c7d65")
    sent = 0
    for (method, path), operation in OPERATIONS.items():
        content = operation.get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            place = await with_id(api, path) if "{id}" in path else path
            status, answer = await api.call(method, place, example["value"])
            assert status in (200, 201, 202), (operation["operationId"], answer)
            sent += 1
    assert sent >= 9


async def with_id(api: Api, path: str) -> str:
    """The path of what the examples are for."""
    if not path.startswith("/v1/dead-letters/"):
        return await of_a_workflow(api, path)
    id_ = await api.submit("fail", {"retryable": False})
    await api.ended(id_)
    return path.replace("{id}", id_)


async def of_a_workflow(api: Api, path: str) -> str:
    """The path of a workflow that has what the examples name; a cancelled one to be retried."""
    later = {"kind": "echo", "delay_s": 3600}
    jobs = [{"name": "extract", **later}, {"name": "load", "depends_on": ["extract"], **later}]
    _, workflow = await api.call("POST", "/v1/workflows", {"name": "w", "jobs": jobs})
    if path.endswith("/retry"):
        await api.call("POST", f"/v1/workflows/{workflow['id']}/cancel")
    return path.replace("{id}", workflow["id"])


async def test_it_is_served_without_a_token_and_written_once(door: Door, served: Served) -> None:
    limits = Limits(batch_jobs_max=17)
    async with served(limits=limits) as port:
        first = await call(port, "GET", "/openapi.json")
        second = await call(port, "GET", "/openapi.json")
    assert first.status == 200
    assert first.headers["content-type"] == "application/json"
    assert first.body == second.body
    assert first.json() == openapi.document(ROUTES, limits)
    batch = first.json()["paths"]["/v1/jobs/batch"]["post"]["requestBody"]["content"]
    assert batch["application/json"]["schema"]["properties"]["jobs"]["maxItems"] == 17


async def test_a_replica_without_the_api_documents_what_it_serves(served: Served) -> None:
    async with served(serves_api=False) as port:
        document = (await call(port, "GET", "/openapi.json")).json()
    assert set(document["paths"]) == {route.path for route in ROUTES if route.role is None}
    validate(document)
