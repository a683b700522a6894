"""The outbox as tests see it: what waits, what was delivered, and relays turned by hand."""

from dataclasses import dataclass
from typing import Any

from penstock.domain.effect import Channel, On, Wish, wishes_json
from penstock.loops.relay import Relay
from tests.support.still import Still
from tests.support.waiting import eventually

ALL_ENDS = (On.SUCCEEDED, On.DEAD, On.CANCELLED)


def hook(*urls: str, on: tuple[On, ...] = ALL_ENDS) -> str:
    """`notify` of a job that tells these URLs of its end."""
    text = wishes_json([Wish(on, Channel.WEBHOOK, url) for url in urls])
    assert text is not None
    return text


@dataclass(frozen=True, slots=True)
class Outbox:
    still: Still

    @property
    def relay(self) -> Relay:
        return self.still.engine.relays.by_channel[Channel.WEBHOOK]

    async def turn(self) -> None:
        """Claims what is due, and waits until all of it has come to an end."""
        await self.relay.step()
        await self.idle()

    async def idle(self) -> None:
        async def look() -> bool:
            return not self.relay.busy

        await eventually(look, "nothing is being delivered", every_s=0.01)

    async def waiting(self) -> list[Any]:
        """endpoint, tries, error and seconds until the next try of each, oldest first."""
        return list(
            await self.still.db.session.fetch(
                "SELECT endpoint, tries, error, event, rule,"
                " extract(epoch FROM due_at - clock_timestamp())::float8 AS in_s"
                " FROM effects ORDER BY at, dedupe"
            )
        )

    async def over(self) -> list[tuple[str, str | None]]:
        """Outcome and error of what is over, in the order in which it ended."""
        found = await self.still.db.session.fetch(
            "SELECT outcome, error FROM deliveries ORDER BY finished_at, at, dedupe"
        )
        return [(row[0], row[1]) for row in found]

    async def endpoints(self) -> list[Any]:
        return list(await self.still.db.session.fetch("SELECT * FROM endpoints ORDER BY endpoint"))

    async def later(self) -> None:
        """As if time had passed until the next try, or the end of a lease."""
        self.relay.rests.clear()
        await self.still.db.session.execute(
            "UPDATE effects SET due_at = clock_timestamp() WHERE due_at < 'infinity'"
        )
