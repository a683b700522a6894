"""A message as an e-mail: subject, text and HTML from the templates beside this file.

Always holds: what a job says of itself (kind, error, tags, …) can neither add a header nor HTML;
a name that a template has and a job hasn't is an error, not a gap.
"""

import hashlib
import re
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

import orjson
from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from penstock.domain.alert import EVENT as ALERT
from penstock.domain.effect import RECOVERED, TEST_EVENT, Effect, Message
from penstock.domain.grouping import event_of_many, tells_of_many

_SUBJECT_MAX = 200
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_BAD_IN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class Letters:
    def __init__(self, from_address: str) -> None:
        self._from = from_address
        self._domain = from_address.rpartition("@")[2]
        self._templates = SandboxedEnvironment(
            loader=PackageLoader("penstock.outlets"),
            undefined=StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html"),
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def written(self, message: Message) -> bytes:
        """As it goes over the line."""
        effect = message.effect
        letter = EmailMessage(policy=SMTP)
        letter["From"] = self._from
        letter["To"] = effect.endpoint
        letter["Subject"] = _one_line(self._made("subject.txt", message))
        letter["Date"] = formatdate(effect.at.timestamp())
        letter["Message-ID"] = f"<{_digest(effect.dedupe)}@{self._domain}>"
        letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        letter.set_content(_BAD_IN_TEXT.sub(" ", self._made("body.txt", message)))
        html = _BAD_IN_TEXT.sub(" ", self._made("body.html", message))
        letter.add_alternative(html, subtype="html")
        return letter.as_bytes()

    def _made(self, template: str, message: Message) -> str:
        effect = message.effect
        return self._templates.get_template(template).render(
            what=_what(effect),
            became=_became(effect),
            reason=effect.reason,
            rule=effect.rule,
            it=orjson.loads(message.data),
        )


def _what(effect: Effect) -> str:
    if effect.event == ALERT:
        return "alert"
    if effect.event == TEST_EVENT:
        return "test"
    if tells_of_many(effect.event):
        return "jobs"
    return "workflow" if effect.workflow is not None else "job"


def _became(effect: Effect) -> str:
    is_recovery = effect.event in (RECOVERED, event_of_many(RECOVERED))
    return "recovered" if is_recovery else effect.state


def _one_line(subject: str) -> str:
    return _CONTROLS.sub(" ", subject).strip()[:_SUBJECT_MAX]


def _digest(dedupe: str) -> str:
    return hashlib.sha256(dedupe.encode()).hexdigest()[:32]
