"""An answer as handlers and outlets get it: whole in memory, bounded, decoded on demand."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message

# Python counts these as text encodings, but no web page is written in them, and some are slow.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` have lower-case names; `body` is decompressed; `truncated`: there was more."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; "" if the server named none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """Python's name of the body's encoding: the one that the server named, else UTF-8."""
        header = Message()
        header["content-type"] = self.headers.get("content-type", "")
        named = str(header.get_param("charset", "")).strip().lower()
        return "utf-8-sig" if named in ("", "utf8", "utf-8") or not _is_text(named) else named

    def text(self) -> str:
        """The body as text, U+FFFD for what isn't; never raises."""
        text = self.body.decode(self.charset, "replace")
        if self.truncated and text.endswith("\ufffd"):
            return text[:-1]  # the character that the cut went through
        return text


def _is_text(charset: str) -> bool:
    if charset.replace("-", "_") in _NO_CHARSETS:
        return False
    try:
        b"a".decode(charset, "replace")
    except (LookupError, ValueError):
        return False
    return True
