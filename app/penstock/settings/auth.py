"""The settings of who may ask: keys of tokens, and what a token must keep to."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from penstock.settings.section import Section
from penstock.settings.values import DAY_S, KIB, LongSecret, PublicKeys

_LAX = frozenset({"development", "test"})  # environments
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_URL_MAX = 2048
_NO_URL = "must be a URL: https://host/path"


def _jwks_url(text: str) -> str:
    try:
        url = urlsplit(text)
        is_whole = url.scheme in ("https", "http") and bool(url.hostname) and url.port != 0
    except ValueError:
        raise ValueError(_NO_URL) from None
    if not is_whole or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(_NO_URL)
    if "@" in url.netloc or "#" in text:
        raise ValueError("must have no user, no password and no #")
    return text


JwksUrl = Annotated[str, Field(max_length=_URL_MAX), AfterValidator(_jwks_url)]


class Auth(Section):
    """Who may ask."""

    jwt_secret: LongSecret | None = Field(
        None, description="key of the HS256 tokens, 32 bytes at least"
    )
    previous_secrets: tuple[LongSecret, ...] = Field(
        (),
        max_length=3,
        description="keys of HS256 tokens that are still taken while auth.jwt_secret is changed",
    )
    # Not repeated in errors: somebody may have put a private key there.
    public_keys: PublicKeys = Field(
        (),
        max_length=20,
        repr=False,
        description="keys of RS256, ES256 and EdDSA tokens: {kid, pem} or {file} (PEM, JWK set)",
    )
    jwks_url: JwksUrl | None = Field(
        None, description="where keys of tokens are published (JWK set); fetched again and again"
    )
    jwks_ttl_s: float = Field(
        600, ge=10, le=DAY_S, description="age at which the key set is fetched anew"
    )
    jwks_stale_s: float = Field(
        DAY_S, ge=60, le=30 * DAY_S, description="time that keys count while it can't be fetched"
    )
    jwks_cooldown_s: float = Field(
        30, ge=1, le=3600, description="least time from a fetch to one for an unknown key"
    )
    jwks_timeout_s: float = Field(5, ge=0.1, le=25, description="longest time of a fetch")
    jwks_max_bytes: int = Field(
        256 * KIB, ge=KIB, le=4096 * KIB, description="largest key set that is taken"
    )
    jwks_keys_max: int = Field(100, ge=1, le=1000, description="most keys in a key set")
    jwks_allow_http: bool = Field(
        False, description="whether auth.jwks_url may be http, which others can change on its way"
    )
    issuer: str | None = Field(None, description="the `iss` a token must have; none = any")
    audience: str | None = Field(None, description="the `aud` a token must have; none = any")
    token_type: Literal["JWT", "at+jwt"] | None = Field(
        None, description="the `typ` a token must have; none = either, or none"
    )
    token_max_age_s: int = Field(
        400 * DAY_S, ge=60, le=4000 * DAY_S, description="longest life of a token"
    )
    leeway_s: int = Field(30, ge=0, le=300, description="clock difference that is forgiven")

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.jwt_secret is None and not self.public_keys and self.jwks_url is None:
            raise PydanticCustomError(
                "lacking",
                "auth.jwt_secret is required, or auth.public_keys, or auth.jwks_url: set "
                "PENSTOCK_AUTH__JWT_SECRET, or PENSTOCK_AUTH__JWT_SECRET_FILE to a file that holds "
                "it, or PENSTOCK_AUTH__PUBLIC_KEYS, or PENSTOCK_AUTH__JWKS_URL",
            )
        return self

    @model_validator(mode="after")
    def _has_one_that_follows(self) -> Self:
        if self.previous_secrets and self.jwt_secret is None:
            raise ValueError("auth.previous_secrets goes with auth.jwt_secret: put one there")
        return self

    @model_validator(mode="after")
    def _outlives_a_missed_fetch(self) -> Self:
        if self.jwks_stale_s < self.jwks_ttl_s:
            raise ValueError(
                f"auth.jwks_stale_s ({self.jwks_stale_s:g}) must be at least "
                f"auth.jwks_ttl_s ({self.jwks_ttl_s:g}), else keys are void before they are old"
            )
        return self

    def demand_safe_url(self, env: str) -> None:
        """Raises ValueError for a key set that others could change on its way to us."""
        url = urlsplit(self.jwks_url or "")
        if url.scheme != "http" or self.jwks_allow_http:
            return
        if env in _LAX and url.hostname in _LOOPBACK:
            return
        raise ValueError(
            f"auth.jwks_url is http, so whoever can change what comes makes keys of his own: make "
            f"it https, or set auth.jwks_allow_http ({', '.join(sorted(_LAX))} take http from "
            "this machine)"
        )
