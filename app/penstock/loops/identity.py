"""Who this replica is at the moment. A condemned name is never used again: a new one is taken."""

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock import clock
from penstock.domain.ids import WorkerId


@dataclass(slots=True)
class Me:
    """Shared by all loops and the keeper thread, which only reads `worker`.

    `beat_at` is the monotonic time before the last renewal that succeeded was sent. `claims`
    says whether new attempts may begin under this name.
    """

    mint: Callable[[], bytes]
    ttl_s: float
    worker: WorkerId = field(default=WorkerId(b""))  # a NewType: no call
    beat_at: float = 0.0
    draining: bool = False
    registered: bool = False

    def renew_name(self) -> WorkerId:
        self.worker = WorkerId(self.mint())
        self.registered = False
        return self.worker

    @property
    def may_claim(self) -> bool:
        """Stops claims well before others may condemn us (reliability.md, P6)."""
        fresh = clock.monotonic() - self.beat_at < 0.7 * self.ttl_s
        return self.registered and fresh and not self.draining
