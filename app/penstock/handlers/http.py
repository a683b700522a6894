"""The kind `http`: calls a URL, and its answer is the job's result (api.md, "Built-in kinds").

In: method, URL, headers, body, the statuses expected. Out: status, headers, body. Always holds: a
receiver can tell repeated calls by `Idempotency-Key`, the job's id, which stays the same over all
attempts; what can't succeed later is not tried again. If we die in the middle the call is made
once more.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from penstock.clock import wall_s
from penstock.egress.client import Egress
from penstock.egress.guard import header_refusal, url_refusal
from penstock.egress.response import Response
from penstock.egress.retrying import is_transient, retry_after_s
from penstock.handlers.context import Context
from penstock.handlers.errors import AttemptFailed, PermanentError, RetryLater
from penstock.handlers.registry import handler
from penstock.handlers.results import DEPTH_MAX, Unstorable, encode
from penstock.handlers.text import cut, printable

_HEADERS_MAX = 64
_SHOWN_MAX_BYTES = 2048  # of the body, in a failure's details
_OURS = "penstock-attempt"
_DIGITS = re.compile(rb"\d{19}")
_HUGE_INT = re.compile(rb"(?<![.\d])\d{19,}(?![\d.eE])")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def _url(url: str) -> str:
    why = url_refusal(url)
    if why:
        raise ValueError(why)
    return url


def _header_name(name: str) -> str:
    why = header_refusal(name)
    if why or name.lower() == _OURS:
        raise ValueError(why or "this header is set by Penstock itself")
    return name


def _header_value(value: str) -> str:
    why = header_refusal("x", value)
    if why:
        raise ValueError(why)
    return value


def _few(headers: Any) -> Any:
    """Counts before each is looked at: pydantic's own limit comes after that."""
    if isinstance(headers, dict) and len(headers) > _HEADERS_MAX:
        raise ValueError(f"must have at most {_HEADERS_MAX} headers")
    return headers


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 200.0 is 200."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Status = Annotated[int, BeforeValidator(_whole), Field(ge=200, le=599)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]


class HttpCall(BaseModel):
    """The payload of `http`."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_names(cls, payload: Any) -> Any:
        """Counts before pydantic describes each of them."""
        if isinstance(payload, dict) and len(payload) > _HEADERS_MAX:
            raise ValueError(f"must have at most {_HEADERS_MAX} fields")
        return payload

    url: Annotated[str, AfterValidator(_url)]
    method: Annotated[Method, BeforeValidator(_upper)] = "GET"
    headers: Annotated[
        dict[HeaderName, HeaderValue], Field(max_length=_HEADERS_MAX), BeforeValidator(_few)
    ] = {}
    body: Any = None
    expect_status: Annotated[list[Status], Field(min_length=1, max_length=50)] | None = None


@handler("http")
async def http(payload: HttpCall, ctx: Context) -> dict[str, Any]:
    """Makes the call, in the time that the job has left."""
    client: Egress = ctx.services.http
    response = await client.request(
        payload.method,
        payload.url,
        _headers(payload, ctx),
        _body(payload.body),
        timeout_s=ctx.remaining_s(),
    )
    if not _is_expected(payload, response.status):
        raise _failure(response)
    return _result(response)


def _is_expected(payload: HttpCall, status: int) -> bool:
    if payload.expect_status is not None:
        return status in payload.expect_status
    return 200 <= status < 300


def _headers(payload: HttpCall, ctx: Context) -> dict[str, str]:
    """The payload's headers, ours where it has none of that name, and the attempt's number."""
    headers = {"Idempotency-Key": ctx.job_id, **ctx.trace_headers}
    if payload.body is not None:
        text = isinstance(payload.body, str)
        headers["Content-Type"] = "text/plain; charset=utf-8" if text else "application/json"
    own = {name.lower() for name in payload.headers}
    ours = {name: value for name, value in headers.items() if name.lower() not in own}
    return {**ours, **payload.headers, "Penstock-Attempt": str(ctx.attempt)}


def _body(body: Any) -> bytes | None:
    if body is None:
        return None
    return body.encode() if isinstance(body, str) else orjson.dumps(body)


def _result(response: Response) -> dict[str, Any]:
    result: dict[str, Any] = {
        "status": response.status,
        "headers": _shown(response.headers),
        "body": _parsed(response),
    }
    if response.truncated:
        result["truncated"] = True
    return result


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: printable(value) for name, value in headers.items()}


def _parsed(response: Response) -> Any:
    """The JSON of a body that is JSON by its media type and fit to be stored, else its text."""
    text, media = response.text(), response.content_type
    is_json = media == "application/json" or media.endswith("+json")
    if is_json and not response.truncated and not _has_huge_int(response.body):
        try:
            parsed = orjson.loads(text)
            encode(parsed, DEPTH_MAX - 1)  # it lies one level deep in the result
            return parsed
        except (orjson.JSONDecodeError, Unstorable):
            pass
    return printable(text)


def _has_huge_int(encoded: bytes) -> bool:
    """Whether an integer is in it that parsing would round."""
    return bool(_DIGITS.search(encoded) and _HUGE_INT.search(_STRING.sub(b"", encoded)))


def _failure(response: Response) -> AttemptFailed:
    status = response.status
    message, kind = f"the server answered {status}", f"http-{status}"
    body = cut(printable(response.text()), _SHOWN_MAX_BYTES)
    details = {"status": status, "body": body}
    if not is_transient(status):
        return PermanentError(message, kind, details)
    wait = retry_after_s(response.headers, wall_s())
    if wait is None:
        return AttemptFailed(message, kind, details)
    return RetryLater(message, wait, kind, details)
