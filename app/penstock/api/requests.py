"""The span of a request: SERVER, a child of the caller's, and current until it is answered.

Only while tracing is on, and only for calls of the API: probes and scrapes would drown it. One that
nobody would keep isn't made. What a submission stores of its trace is this span.
"""

from http import HTTPStatus

from aiohttp import web

from penstock.api import traces
from penstock.domain.trace import id_of
from penstock.telemetry import scope, tracing
from penstock.telemetry.tracing import SERVER, Begun, Within

_API = "/v1/"


def begun(request: web.BaseRequest, about: scope.Request) -> Begun | None:
    if not request.raw_path.startswith(_API):
        return None
    callers = traces.sent(request.headers)
    if callers is None and not tracing.has_room():
        return None
    attributes = {
        "http.request.method": request.method,
        "url.scheme": request.scheme,
        "penstock.request.id": about.request_id,
    }
    within = Within(callers, enters=True)
    span = tracing.begin(request.method, SERVER, attributes, within)
    about.trace_id = id_of(span.trace)
    return span


def ended(
    span: Begun, request: web.BaseRequest, about: scope.Request, response: web.Response
) -> None:
    """It has been answered. A refusal is no error of ours."""
    told: dict[str, str | int] = {
        "http.route": about.route,
        "http.response.status_code": response.status,
    }
    if about.caller:
        told["enduser.id"] = about.caller
    span.told(told, f"{request.method} {about.route}")
    is_ours = response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    span.end(str(response.status) if is_ours else None)
