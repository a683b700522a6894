"""Which e-mail addresses are taken: one plain addr-spec each. Pure.

An address goes into headers and envelopes of others, so what programs read in several ways isn't
taken: names, comments, quoted or routed local parts, lists, address literals, hosts without a dot.
"""

import re

CHARS_MAX = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets
_LOCAL_MAX = 64
_ATOM = (
    r"[A-Za-z0-9#$&'*+=?^_{}~-]+"  # RFC 5322's, without % ! | / ` that have routed or run things
)
_LOCAL = re.compile(rf"(?!-){_ATOM}(?:\.{_ATOM})*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?=[A-Za-z0-9-]*[A-Za-z]){_LABEL}")


def refusal(address: str) -> str | None:
    """Why we don't send mail to `address`, or None."""
    if len(address) > CHARS_MAX:
        return f"must have at most {CHARS_MAX} characters"
    local, at, domain = address.rpartition("@")
    if not at or len(local) > _LOCAL_MAX or not _LOCAL.fullmatch(local):
        return "must be one plain address such as ops@example.com"
    if not _DOMAIN.fullmatch(domain):
        return "must end in the name of a domain, such as example.com"
    return None
