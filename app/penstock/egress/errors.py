"""How a call can fail before there is an answer: for good, or for now."""

from penstock.domain.errors import PenstockError


class EgressRefused(PenstockError):
    """We don't make this call, now or later: its URL, a header or the address is not allowed."""


class EgressError(PenstockError):
    """No answer this time: name not found, connection failed or broken, time over."""


class AddressRefused(OSError):
    """The guard's veto inside aiohttp's connector, which lets only OSErrors through whole."""
