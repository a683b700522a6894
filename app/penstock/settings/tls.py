"""Settings about TLS: our own certificates, and how all of it gets into the address of a server.

Always holds: a file that is named is there and is of the right sort (`values.CaFile`), else the
start stops and says so. PostgreSQL and Redis take TLS by the query of their URL, so that every
connection of ours has the same, whoever makes it.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

# Where systems keep the CAs that they trust, in one file.
_SYSTEM_CAS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, distroless
    "/etc/pki/tls/certs/ca-bundle.crt",  # Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def demand_pair(section: str, cert_file: str | None, key_file: str | None) -> None:
    """Raises ValueError unless certificate and key are both there, and belong together."""
    if cert_file is None and key_file is None:
        return
    names = f"{section}.cert_file and {section}.key_file"
    if cert_file is None or key_file is None:
        raise ValueError(f"{names} go together: one of them is missing")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert_file, key_file, _no_password)
    except ssl.SSLError:
        raise ValueError(
            f"{names} are no certificate and its key, in PEM form and without a password"
        ) from None
    except OSError as error:
        raise ValueError(f"{names} can't be read: {error.strerror or error}") from None


def _no_password() -> str:
    """Else OpenSSL would ask for one on the terminal."""
    return ""


def system_ca_file() -> str:
    """The CAs that this system trusts. Raises ValueError where they can't be found."""
    known = ssl.get_default_verify_paths().cafile
    for path in (known, *_SYSTEM_CAS):
        if path and Path(path).is_file():
            return path
    raise ValueError("this system has no file of CAs that we know of")


def names_in_query(url: str, prefix: str) -> list[str]:
    """The names in the query of a URL that begin with this."""
    return [name for name, _ in parse_qsl(urlsplit(url).query) if name.startswith(prefix)]


def with_query(url: str, more: Mapping[str, str | None]) -> str:
    """The URL with these parameters too, without those that are None."""
    added = "&".join(f"{name}={quote(text, safe='')}" for name, text in more.items() if text)
    if not added:
        return url
    return f"{url}{'&' if urlsplit(url).query else '' if url.endswith('?') else '?'}{added}"
