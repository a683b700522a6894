"""The OpenAPI document as a judge of every answer that a test gets.

What the document leaves open for clients' sake is closed here: a field that it doesn't name, a
status, a content type or a header of ours that it doesn't know fails the test that met it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import jsonschema_rs
import orjson

from penstock.api import openapi
from penstock.api.door import Limits
from penstock.api.problems import Problem
from penstock.api.routes import ROUTES, Table

# Headers of HTTP itself, of a proxy before us, and those of ours that say nothing about the call.
_PLAIN = {
    *("content-type", "content-length", "date", "server", "connection", "via"),
    *("cache-control", "x-content-type-options", "content-security-policy", "referrer-policy"),
}
_TABLE = Table(ROUTES)


@cache
def contract() -> "Contract":
    """The contract of the door with all its routes."""
    return Contract(openapi.document(ROUTES, Limits()))


class Contract:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._components = closed(document["components"])
        self._judges: dict[str, Any] = {}

    def judge(self, method: str, target: str, status: int, headers: Mapping[str, str]) -> Any:
        """The documented response. Raises AssertionError where there is none."""
        where = f"{method} {target}: {status}"
        response = self._response(method, target.partition("?")[0], status, where)
        known = {name.lower(): self._header(header) for name, header in response["headers"].items()}
        sent = {name.lower() for name in headers}
        lacking = {name for name, header in known.items() if header["required"]} - sent
        assert not lacking, f"{where} lacks the headers {sorted(lacking)}"
        unsaid = sent - set(known) - _PLAIN
        assert not unsaid, f"{where} has headers that the document doesn't name: {sorted(unsaid)}"
        return response

    def check_accepted(self, method: str, target: str, body: Any) -> None:
        """Fails unless the document says that this can be sent; for what was answered with 2xx."""
        path, _, query = target.partition("?")
        route, _ = _TABLE.find(method, path)
        operation = self._document["paths"][route.path][method.lower()]
        known = {one["name"] for one in operation.get("parameters", ()) if "name" in one}
        unsaid = {name for name, _ in parse_qsl(query)} - known
        assert not unsaid, f"{method} {target} took parameters that no document names: {unsaid}"
        if "requestBody" not in operation:
            assert not body, f"{method} {target} took a body, the document says none"
            return
        if body is None and not operation["requestBody"]["required"]:
            return
        judge = self._judge(operation["requestBody"]["content"]["application/json"]["schema"])
        problems = [error.message for error in judge.iter_errors(body)]
        assert not problems, f"{method} {target} took what the document doesn't: {problems}"

    def check(
        self, method: str, target: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Fails unless the document says that this call can have this answer."""
        where = f"{method} {target}: {status}"
        response = self.judge(method, target, status, headers)
        content = response.get("content")
        if content is None:
            assert not body, f"{where} has a body, the document says none"
            return
        media = headers.get("Content-Type", headers.get("content-type", "")).partition(";")[0]
        assert media in content, f"{where} is {media!r}, the document says {sorted(content)}"
        if media.endswith("json"):
            problems = [
                f"{'/'.join(map(str, error.instance_path))}: {error.message}"
                for error in self._judge(content[media]["schema"]).iter_errors(orjson.loads(body))
            ]
            assert not problems, f"{where} is not as the document says: {problems}"

    def _response(self, method: str, path: str, status: int, where: str) -> Any:
        """Of the operation; or, where no route is, of the refusal that says so."""
        try:
            route, _ = _TABLE.find(method, path)
        except Problem as refusal:
            name = "bad-request" if status == 400 else refusal.slug
            return self._document["components"]["responses"][name]
        operations = self._document["paths"].get(route.path, {})
        operation = operations.get(route.method.lower())
        assert operation, f"{route.method} {route.path} is not in the document: see openapi_calls"
        responses = operation["responses"]
        assert str(status) in responses, f"{where} is not in the document: add it in openapi_calls"
        response = responses[str(status)]
        if "$ref" in response:
            name = response["$ref"].rpartition("/")[2]
            return self._document["components"]["responses"][name]
        return response

    def _header(self, header: Mapping[str, Any]) -> Any:
        if "$ref" not in header:
            return header
        return self._document["components"]["headers"][header["$ref"].rpartition("/")[2]]

    def _judge(self, schema: Any) -> Any:
        key = orjson.dumps(schema).decode()
        if key not in self._judges:
            whole = {**closed(schema), "components": self._components}
            self._judges[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._judges[key]


def closed(schema: Any) -> Any:
    """The schema, with no other fields allowed than those that its objects name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made
