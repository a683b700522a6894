"""What is wrong with TLS, in the words of an operator.

In: the error of a library, which may hide OpenSSL's among its causes. Out: what ails the other
side's certificate or ours, or None for anything else: a connection that is lost amid a handshake
may do better the next time, and what is told here won't.
"""

import ssl
from collections.abc import Iterator

# OpenSSL's X509_V_ERR_… numbers.
_SAID = {
    9: "its certificate is not valid yet (or our clock is late)",
    10: "its certificate has expired",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
_UNKNOWN_CA = (2, 7, 18, 19, 20, 21)
_REASONS = {
    "WRONG_VERSION_NUMBER": "it speaks no TLS there",
    "HTTP_REQUEST": "it speaks no TLS there",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS of version 1.2 or later",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS of our versions, 1.2 and later",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours",
    "TLSV1_ALERT_UNKNOWN_CA": "it knows no CA that has signed our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it doesn't take our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it doesn't take our certificate",
}


def fault_of(error: BaseException | None) -> str | None:
    """`its certificate has expired`, to stand behind the name of a server."""
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            if one.verify_code in _UNKNOWN_CA:
                return "its certificate is signed by no CA that we trust"
            return _SAID.get(one.verify_code, f"its certificate is refused: {one.verify_message}")
        if isinstance(one, ssl.SSLError) and one.reason in _REASONS:
            return _REASONS[one.reason]
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came of; a library may raise its own while it handles another."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # Some hold the first one as their argument only.
        yield from (one for one in error.args if isinstance(one, ssl.SSLError))
        error = error.__cause__ or error.__context__
