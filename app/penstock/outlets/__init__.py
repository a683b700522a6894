"""Ways out of the house: each delivers messages of one channel, and knows nothing of the outbox."""

from penstock.outlets.mail import Mail, Server
from penstock.outlets.outlet import Outlet
from penstock.outlets.reach import Reach
from penstock.outlets.webhook import Webhook

__all__ = ["Mail", "Outlet", "Reach", "Server", "Webhook"]
