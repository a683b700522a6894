"""Where the public keys of tokens come from: one entry of auth.public_keys.

In: a PEM as text, or a file with a PEM or a JWK set. Out: the keys, read once, when the settings
are. Always holds: a key that we would not check tokens with stops the start.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from penstock import keys
from penstock.keys import KID_PATTERN, Algorithm, KeyRefused, PublicKey

FILE_MAX_BYTES = 256 * 1024


class KeySource(BaseModel):
    """Either `pem` or `file`. `kid` names the key of a PEM, those of a JWK set have theirs."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kid: str | None = Field(None, pattern=KID_PATTERN)
    algorithm: Algorithm | None = None  # the kind of key says it; here it can be made sure of
    pem: str | None = Field(None, repr=False, max_length=FILE_MAX_BYTES)
    file: str | None = None

    _keys: tuple[PublicKey, ...] = PrivateAttr(())

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        return self._keys

    def __str__(self) -> str:
        """What was found and where: `RS256 2026-11, ES256 2026-12 (/etc/penstock/jwks.json)`."""
        found = ", ".join(f"{key.algorithm} {key.kid or ''}".rstrip() for key in self._keys)
        return f"{found} ({self.file or 'pem'})"

    @model_validator(mode="after")
    def _read(self) -> Self:
        if (self.pem is None) == (self.file is None):
            raise ValueError("needs a pem or a file, and not both")
        place = self.file or "pem"
        try:
            if self.pem is not None:
                found: tuple[PublicKey, ...] = (keys.of_pem(self.pem, self.kid),)
            else:
                found = _of_file(place, self.kid)
        except KeyRefused as refused:
            raise ValueError(f"{place} {refused}") from None
        for key in found:
            if self.algorithm not in (None, key.algorithm):
                raise ValueError(f"{place} has a key for {key.algorithm}, not {self.algorithm}")
        self._keys = found
        return self


def _of_file(path: str, kid: str | None) -> tuple[PublicKey, ...]:
    if "-----" in path:
        raise ValueError("file is the path of a file: the text of a key goes to pem")
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise KeyRefused(f"can't be read: {error.strerror}") from None
    except ValueError:
        raise KeyRefused("is no text") from None
    if len(text) > FILE_MAX_BYTES:
        raise KeyRefused(f"has more than {FILE_MAX_BYTES} characters")
    if not text.lstrip().startswith("{"):
        return (keys.of_pem(text, kid),)
    if kid is not None:
        raise KeyRefused("is a JWK set, whose keys have kids of their own: drop kid")
    return keys.of_jwks(text)
