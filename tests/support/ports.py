"""Free ports on the loopback.

From below those that the kernel gives to clients: while a replica is dead, a client that calls it
again could get that very port for itself, and hold it against the restart.
"""

import random
import socket

_PORTS = range(10_000, 20_000)


def free_port() -> int:
    return next(port for port in random.sample(_PORTS, 200) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
