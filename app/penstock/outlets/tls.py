"""How we speak TLS to brokers and mail servers, and what is wrong where that fails."""

import asyncio
import ssl
from contextlib import suppress

from penstock.domain import trust

_TRY_S = 5.0


def context_of(
    ca_file: str | None, cert_file: str | None = None, key_file: str | None = None
) -> ssl.SSLContext:
    """Checks certificate and name, by the system's CAs where no file is given."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


async def fault_at(place: str, context: ssl.SSLContext) -> str | None:
    """What is wrong with TLS at `host:port`: for libraries that keep the reason to themselves."""
    host, _, port = place.strip().rpartition(":")
    try:
        async with asyncio.timeout(_TRY_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    except OSError as error:  # TimeoutError is one
        return trust.fault_of(error)
    return None
