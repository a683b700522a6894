"""A certificate authority that is thrown away with the test, and what speaks TLS by it.

Its certificates are as RFC 5280 wants them: Python trusts no others from 3.13 on.
"""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
_HOUR = datetime.timedelta(hours=1)
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """`ca_file` is its own certificate; `issued` makes others."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key, _HOUR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_SIGNS, True)
        self._id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(self._id, False)
        self.ca_file = str(directory / f"{name}.pem")
        Path(self.ca_file).write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))

    def issued(self, name: str, host: str = HOST, *, expired: bool = False) -> str:
        """The path of a file that holds a certificate for this host, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        lasts = -_HOUR if expired else _HOUR
        try:
            other: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            other = x509.DNSName(host)
        builder = _builder(_name(name), self._name, key, lasts)
        builder = builder.add_extension(x509.SubjectAlternativeName([other]), False)
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._id)
        builder = builder.add_extension(signed_by, False)
        path = self._directory / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + _pem(builder.sign(self._key, hashes.SHA256()))
        )
        path.chmod(0o600)
        return str(path)

    def serving(self, certificate: str, *, wants_ours: bool = False) -> ssl.SSLContext:
        """Of a server with this certificate; `wants_ours`: the client must show one of this CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        if wants_ours:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        return context


def certificate_in(directory: Path) -> Path:
    """A file with a certificate of 127.0.0.1, its key, and the CA that signed it."""
    authority = Authority(directory)
    path = Path(authority.issued("tls"))
    path.write_text(path.read_text() + Path(authority.ca_file).read_text())
    return path


@asynccontextmanager
async def terminator(
    port: int, tls: ssl.SSLContext, *, postgres: bool = False
) -> AsyncIterator[int]:
    """The port of a proxy that speaks TLS for a real server that can't: at once, or, for
    PostgreSQL, when the client asks for it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if postgres:
                await reader.readexactly(8)  # SSLRequest
                writer.write(b"S")
                await writer.start_tls(tls)
            there = await asyncio.open_connection(HOST, port)
            try:
                await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))
            finally:
                there[1].close()
        writer.close()

    at_once = None if postgres else tls
    server = await asyncio.start_server(serve, HOST, 0, ssl=at_once)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65_536):
            writer.write(some)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.close()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    lasts: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * _HOUR)
        .not_valid_after(now + lasts)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
