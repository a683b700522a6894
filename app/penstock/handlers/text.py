"""Makes any text fit to be stored and shown. Pure."""

import re

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL takes neither, UTF-8 no surrogates
# Control characters, the two line ends of Unicode, and what turns the reading direction around.
_UNSHOWABLE = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_UNPRINTABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def storable(text: str) -> str:
    """U+FFFD for NUL and lone surrogates; the rest is left alone."""
    return _UNSTORABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """`text` as one line that can neither forge a second one nor move a terminal's cursor."""
    return storable(_UNSHOWABLE.sub(_escaped, text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def cut(text: str, bytes_max: int) -> str:
    """`text` in at most `bytes_max` bytes of UTF-8, with `…` where it was cut."""
    if len(text) * 4 <= bytes_max:
        return text
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= bytes_max:
        return text
    return encoded[: max(bytes_max - 3, 0)].decode("utf-8", "ignore") + "…"


def shortened(text: str, characters_max: int) -> str:
    """`text` as one line of at most so many characters, with `…` where it was cut."""
    line = one_line(text[: characters_max + 1])
    return line if len(line) <= characters_max else line[: characters_max - 1] + "…"


def printable(text: str) -> str:
    """U+FFFD for all control characters but tab and line ends, and for lone surrogates."""
    return _UNPRINTABLE.sub("\ufffd", text)
