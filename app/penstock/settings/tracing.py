"""The settings of spans: whether they are made, and which collector takes them."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from penstock.settings.section import Section

_HEADER = re.compile(r"\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+=[\x21-\x2b\x2d-\x7e]*\s*")


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL, such as http://localhost:4318")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, query or fragment: credentials go in tracing.headers")
    return url


def _headers(secret: SecretStr) -> SecretStr:
    if not all(_HEADER.fullmatch(one) for one in secret.get_secret_value().split(",")):
        raise ValueError("must be name=value, or several of them with commas, percent-encoded")
    return secret


class Tracing(Section):
    """Spans, for OpenTelemetry."""

    enabled: bool = Field(False, description="whether spans are made; needs the extra [otel]")
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None,
        description="base URL of an OTLP/HTTP collector; unset = OTEL_EXPORTER_OTLP_… or "
        "http://localhost:4318",
    )
    headers: Annotated[SecretStr, AfterValidator(_headers)] | None = Field(
        None, description="what the collector asks for: name=value,name=value"
    )
    sample_ratio: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the traces begun here that are kept; unset = OTEL_TRACES_SAMPLER, "
        "or per_s",
    )
    per_s: float = Field(
        20,
        gt=0,
        le=1_000_000,
        description="traces begun here that are kept a second by each replica, where neither "
        "sample_ratio nor OTEL_TRACES_SAMPLER is set, five times as many at once; further jobs of "
        "a batch count like a trace",
    )
    timeout_s: float = Field(10, ge=0.1, le=60, description="longest time to send spans")
    waiting_max: int = Field(
        2048, ge=1, le=1_000_000, description="most spans that wait to be sent"
    )
