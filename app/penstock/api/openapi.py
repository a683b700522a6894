"""`/openapi.json`: the calls in OpenAPI 3.1, made from what the door itself goes by.

In: the routes that are served, and the limits of the door. Out: the document. Always holds:
requests are described by the models that validate them, roles by the table that decides, refusals
by the table of problems; words and the shapes of answers come from `openapi_calls` and `shapes`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from penstock import VERSION
from penstock.api import openapi_parts as parts
from penstock.api import openapi_problems, shapes
from penstock.api.delivery_body import ENDPOINT_BODY, TEST_BODY
from penstock.api.door import Limits
from penstock.api.job_body import JOB_BODY
from penstock.api.letter_body import REPLAY_BODY, REPLAYS_BODY
from penstock.api.openapi_calls import CALLS, TAGS
from penstock.api.openapi_parts import Call, Gives
from penstock.api.openapi_schemas import Json, Schemas, without_null
from penstock.api.routes import Route, Takes
from penstock.api.workflow_body import MORE_BODY, RETRY_BODY, WORKFLOW_BODY

# What else than jobs by themselves can be sent.
_BODIES: Mapping[Takes, TypeAdapter[Any]] = {
    Takes.WORKFLOW: WORKFLOW_BODY,
    Takes.MORE: MORE_BODY,
    Takes.RETRY: RETRY_BODY,
    Takes.REPLAY: REPLAY_BODY,
    Takes.REPLAYS: REPLAYS_BODY,
    Takes.ENDPOINT: ENDPOINT_BODY,
    Takes.TEST: TEST_BODY,
}
_VARYING = re.compile(r"\{(\w+)\}")


@lru_cache(maxsize=4)
def written(routes: tuple[Route, ...], limits: Limits) -> bytes:
    """The document as it is served; made once for the same routes and limits (50 ms)."""
    return orjson.dumps(document(routes, limits), option=orjson.OPT_APPEND_NEWLINE)


def document(routes: Sequence[Route], limits: Limits) -> Json:
    """The document. A route without a row in `CALLS` is left out; a test finds it."""
    maker = _Maker([route for route in routes if route.handler in CALLS], limits)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock",
            "version": VERSION,
            "summary": "A job scheduling server",
            "description": parts.introduction(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": says} for name, says in TAGS.items()],
        "paths": maker.paths(),
        "components": {
            "schemas": maker.schemas.components,
            "responses": maker.refusals,
            "parameters": parts.header_parameters(),
            "headers": parts.response_headers(),
            "securitySchemes": {parts.SECURITY: parts.security_scheme()},
        },
    }


class _Maker:
    """Describes routes; what several of them refer to gathers in `schemas` and `refusals`."""

    def __init__(self, routes: Sequence[Route], limits: Limits) -> None:
        self._routes = routes
        self._limits = limits
        given = [gives for route in routes for gives in CALLS[route.handler].gives.values()]
        self.schemas = Schemas(
            requests=[JOB_BODY, *_BODIES.values()],
            queries=dict.fromkeys(route.asks for route in routes if route.asks is not None),
            answers=[shapes.Problem, *(one.shape for one in given if one.shape is not None)],
        )
        self.schemas.components["Problem"]["description"] += "\n\n" + openapi_problems.table()
        self.refusals: Json = {}
        self._refused(openapi_problems.OF_NO_CALL)

    def paths(self) -> Json:
        paths: Json = {}
        for route in self._routes:
            place = paths.setdefault(route.path, {})
            if names := _VARYING.findall(route.path):
                place["parameters"] = [parts.path_parameter(name) for name in names]
            place[route.method.lower()] = self._operation(route, CALLS[route.handler])
        return paths

    def _operation(self, route: Route, call: Call) -> Json:
        made: Json = {
            "operationId": call.name,
            "tags": [call.tag],
            "summary": call.summary,
            "description": call.description,
            "security": [],
            "parameters": [*self._query(route), *map(parts.header_parameter, call.sends)],
        }
        if route.role is not None:
            made["description"] += "\n\n" + parts.who_may(route.role)
            made["security"] = [{parts.SECURITY: [route.role]}]
            made["x-required-role"] = route.role
        if route.takes is not Takes.NOTHING:
            made["requestBody"] = self._body(route.takes, call)
        made["responses"] = {
            **{
                str(status): self._given(gives, route, call) for status, gives in call.gives.items()
            },
            **self._refused(openapi_problems.slugs(route, call.problems)),
        }
        return made

    def _query(self, route: Route) -> Iterator[Json]:
        if route.asks is None:
            return
        model = self.schemas.query(route.asks)
        for name, schema in model["properties"].items():
            yield {
                "name": name,
                "in": "query",
                "description": schema.get("description", ""),
                "required": name in model.get("required", ()),
                "schema": without_null(schema),
            }

    def _body(self, takes: Takes, call: Call) -> Json:
        schema = self.schemas.of(_BODIES.get(takes, JOB_BODY))
        if takes is Takes.BATCH:
            schema = _batch_of(schema, self._limits.batch_jobs_max)
        samples = {name: {"value": value} for name, value in call.samples.items()}
        content = {"application/json": {"schema": schema, "examples": samples}}
        return {"required": not takes.is_optional, "content": content}

    def _given(self, gives: Gives, route: Route, call: Call) -> Json:
        headers = ["X-Request-Id", *gives.headers]
        headers += parts.RATE_HEADERS if route.role is not None else ()
        headers += ["Link"] if openapi_problems.is_paged(route) else []
        headers += [parts.ANSWERED_BY[name] for name in call.sends if name in parts.ANSWERED_BY]
        made: Json = {"description": gives.says, "headers": parts.headers(headers)}
        if gives.media:
            made["content"] = {media: self._content(gives) for media in gives.media}
        return made

    def _content(self, gives: Gives) -> Json:
        if gives.shape is None:
            return {"schema": {"type": "string"}}
        schema = self.schemas.of(gives.shape)
        whole = self.schemas.example(schema) if "$ref" in schema else {}
        return {"schema": schema, "example": {**whole, **gives.example}}

    def _refused(self, slugs: Iterable[str]) -> Json:
        """Responses by status; each is a component, for calls with the same refusals."""
        made: Json = {}
        for status, same in openapi_problems.by_status(slugs).items():
            name = "-or-".join(same)
            self.refusals[name] = openapi_problems.response(status, same)
            made[str(status)] = {"$ref": f"#/components/responses/{name}"}
        return made


def _batch_of(job: Json, jobs_max: int) -> Json:
    """The envelope of a batch, as `batches.listed` looks into it."""
    jobs = {"type": "array", "items": job, "minItems": 1, "maxItems": jobs_max}
    return {
        "type": "object",
        "properties": {"jobs": jobs},
        "required": ["jobs"],
        "additionalProperties": False,
    }
