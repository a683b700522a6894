"""Ways out of the house: each delivers messages of one channel, and knows nothing of the outbox."""

from penstock.outlets.outlet import Outlet

__all__ = ["Outlet"]
