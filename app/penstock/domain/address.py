"""E-mail addresses that we write to: one plain address each, nothing that a mailer reads twice.

Narrower than RFC 5322 on purpose: quotes, comments, lists and names without a domain are refused,
for what one program reads as one address another reads as two.
"""

import re

ADDRESS_MAX = 254  # RFC 5321, 4.5.3.1.3, without its brackets
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_LOCAL_MAX = 64
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"({_LABEL}\.)+{_LABEL}")
_NUMBER = re.compile(r"[0-9]+")


def address_refusal(text: str) -> str | None:
    """Why we don't write to this address, or None."""
    if len(text) > ADDRESS_MAX:
        return f"the address is longer than {ADDRESS_MAX} characters"
    local, at, domain = text.rpartition("@")
    if not at or not _LOCAL.fullmatch(local) or len(local) > _LOCAL_MAX:
        return "must be one plain e-mail address, as ops@example.com"
    if not _DOMAIN.fullmatch(domain) or _NUMBER.fullmatch(domain.rpartition(".")[2]):
        return "the address must end in a domain, as example.com"
    return None
