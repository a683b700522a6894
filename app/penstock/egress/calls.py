"""The span of an outgoing call: CLIENT, a child of what is under way, and the trace that goes out.

Only while tracing is on and in a trace. Who sends headers of a trace of his own keeps them; those
of what is under way become this call's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from yarl import URL

from penstock.domain.trace import headers_of
from penstock.telemetry import tracing
from penstock.telemetry.tracing import CLIENT, Begun, Within

_ERRORS = 400


@contextmanager
def traced(
    method: str, url: URL, headers: Mapping[str, str]
) -> Iterator[tuple[Begun, Mapping[str, str]]]:
    """Of the URL only the place is told: the rest may be its receiver's secret."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "server.address": url.host or "",
    }
    if url.port is not None:
        attributes["server.port"] = url.port
    span = tracing.begin(method, CLIENT, attributes, Within())
    try:
        yield span, _sent(headers, span)
    except BaseException as error:
        span.end(type(error).__qualname__, str(error))
        raise


def answered(span: Begun, status: int) -> None:
    span.told({"http.response.status_code": status})
    span.end(str(status) if status >= _ERRORS else None)


def _sent(headers: Mapping[str, str], span: Begun) -> Mapping[str, str]:
    around = headers_of(tracing.current())
    given = next((v for name, v in headers.items() if name.lower() == "traceparent"), None)
    if given not in (None, around.get("traceparent")):
        return headers
    ours = headers_of(span.trace)
    return {**{n: v for n, v in headers.items() if n.lower() not in ours}, **ours}
