"""What leaves the house: who is told of which ends, and by what."""

import base64
import binascii
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from penstock.domain import address
from penstock.domain.effect import Channel, On, Rule, Wish
from penstock.settings.quiet import Group, Quiet
from penstock.settings.section import Section
from penstock.settings.values import DAY_S, CaFile, QueueGlob

_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]+=*)")
_KEY_MIN_BYTES, _KEY_MAX_BYTES = 24, 64  # Standard Webhooks


def _webhook_secret(secret: SecretStr) -> SecretStr:
    found = _SECRET.fullmatch(secret.get_secret_value())
    try:
        key = base64.b64decode(found[1] + "==") if found else b""
    except binascii.Error:
        key = b""
    if not _KEY_MIN_BYTES <= len(key) <= _KEY_MAX_BYTES:
        raise ValueError(
            f"must be whsec_ and {_KEY_MIN_BYTES} to {_KEY_MAX_BYTES} random bytes in base64: "
            'echo "whsec_$(openssl rand -base64 32)"'
        )
    return secret


def _different(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if len({secret.get_secret_value() for secret in secrets}) != len(secrets):
        raise ValueError("a secret is there twice")
    return secrets


def _address(text: str) -> str:
    if why := address.refusal(text):
        raise ValueError(why)
    return text


WebhookSecret = Annotated[SecretStr, AfterValidator(_webhook_secret)]
WebhookSecrets = Annotated[tuple[WebhookSecret, ...], AfterValidator(_different)]
EmailAddress = Annotated[str, AfterValidator(_address)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class Webhook(Section):
    """Webhooks; without secrets none can be asked for."""

    secrets: WebhookSecrets = Field(
        (),
        max_length=5,
        description="keys that webhooks are signed with, whsec_… each; several while rotating",
    )
    timeout_s: float = Field(
        15, ge=0.1, le=18, description="longest time of a call, answer and all"
    )
    disable_after_s: float = Field(
        5 * DAY_S,
        ge=60,
        le=366 * DAY_S,
        description="time that an endpoint may fail without a break before it is given up",
    )
    schemes: tuple[Literal["http", "https"], ...] = Field(
        ("https",), min_length=1, max_length=2, description="what URLs may begin with"
    )


class Smtp(Section):
    """The mail server; without a host no e-mail can be asked for."""

    host: str | None = Field(None, min_length=1, max_length=253, description="its name or address")
    port: int = Field(587, ge=1, le=65535, description="its port")
    from_address: EmailAddress | None = Field(None, description="whom mail comes from")
    username: str | None = Field(None, min_length=1, description="login, if it wants one")
    password: SecretStr | None = Field(None, description="password of that login")
    tls: Literal["none", "starttls", "tls"] = Field(
        "starttls", description="tls = from the first byte; starttls = after a word; or none"
    )
    ca_file: CaFile | None = Field(
        None, description="certificates that are trusted; none = the system's"
    )
    timeout_s: float = Field(20, ge=0.1, le=20, description="longest time of a delivery")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.host is not None and self.from_address is None:
            raise ValueError("smtp.from_address is required where smtp.host is set")
        if (self.username is None) != (self.password is None):
            raise ValueError("smtp.username and smtp.password go together: one of them is missing")
        if self.password is not None and self.tls == "none":
            raise ValueError("smtp.password would be sent unprotected: smtp.tls must not be none")
        return self


class Addressed(Section):
    """Who is told of which ends: a webhook or an e-mail address."""

    on: tuple[On, ...] = Field(min_length=1, max_length=5)
    webhook: str | None = Field(None, min_length=1, max_length=2048, repr=False)
    email: EmailAddress | None = None

    @model_validator(mode="after")
    def _tells_one(self) -> Self:
        if (self.webhook is None) == (self.email is None):
            raise ValueError("needs a webhook or an email, and not both")
        return self

    def __str__(self) -> str:
        """Without the URL's path: there are receivers whose secret it is."""
        to = self.email if self.webhook is None else urlsplit(self.webhook).hostname
        return f"{', '.join(self.on)} to {to}"

    def as_wish(self) -> Wish:
        channel = Channel.EMAIL if self.webhook is None else Channel.WEBHOOK
        return Wish(self.on, channel, self.webhook or self.email or "")


class NotificationRule(Addressed):
    """Who is told of the ends of which jobs. Queues, kinds: globs; tags: any of them; none: all."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    queues: tuple[QueueGlob, ...] = Field((), max_length=100)
    kinds: tuple[QueueGlob, ...] = Field((), max_length=100)
    tags: tuple[Tag, ...] = Field((), max_length=100)
    throttle_s: float = Field(0, ge=0, le=DAY_S)
    quiet: Quiet = ()
    group: Group | None = None

    def __str__(self) -> str:
        return f"{self.name}: {super().__str__()}"

    def as_rule(self) -> Rule:
        quiet = tuple(one.as_window() for one in self.quiet)
        group = None if self.group is None else self.group.as_grouping()
        of = (self.queues, self.kinds, self.tags)
        return Rule(self.name, self.as_wish(), *of, self.throttle_s, quiet, group)


def _named_apart(rules: tuple[NotificationRule, ...]) -> tuple[NotificationRule, ...]:
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"there are two rules {name}")
    return rules


class Notifications(Section):
    """Who is told besides those that jobs ask for."""

    rules: Annotated[tuple[NotificationRule, ...], AfterValidator(_named_apart)] = Field(
        (),
        max_length=100,
        repr=False,
        description="rules: {name, on, queues, kinds, tags, webhook or email, throttle_s, quiet, "
        "group}",
    )
