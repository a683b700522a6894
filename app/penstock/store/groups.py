"""Groups of effects in Postgres: who is of which, and messages whose members are settled.

In: effects that rules tell of in one message. Out: groups that wait for their time, then a message
each. Always holds: an effect is of one group, and of one message; once a message is settled, who is
of it never changes, so that a second sending tells the same under the same id. If we die before a
COMMIT, an effect's lease ends, and it is asked about again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.domain.effect import Effect, Rule
from penstock.domain.grouping import Fact, Grouping, event_of_many, grouped
from penstock.domain.ids import JobId
from penstock.domain.job import State
from penstock.store.ends import End
from penstock.store.postgres import Postgres

TAKEN_MAX = 1000  # besides those that were claimed


@dataclass(frozen=True, slots=True)
class Told:
    """What a message tells of: how many, when the first and the last ended, and some of them: which
    end, why, when."""

    count: int
    first_at: datetime
    last_at: datetime
    samples: list[tuple[End, str | None, datetime]]


@dataclass(frozen=True, slots=True)
class Settled:
    """What a message is called from now on, and what its members have in common."""

    dedupe: str
    event: str
    labels: str


class Groups:
    def __init__(self, postgres: Postgres) -> None:
        self._pg = postgres

    async def join(self, rule: Rule, grouping: Grouping, effects: Sequence[Effect]) -> None:
        """Takes claimed effects of a rule into its groups; with them what else is due, where
        nothing but the group is to be asked about it."""
        lease, (channel, endpoint) = effects[0].lease, (rule.wish.channel, rule.wish.endpoint)
        besides = 0 if rule.looks_back or rule.throttle_s else TAKEN_MAX
        asked = ([one.id for one in effects], lease, rule.name, besides, channel, endpoint)
        async with self._pg.transaction(after="after_join_groups") as transaction:
            facts = [Fact(*row) for row in await transaction.rows("to_group", *asked)]
            if not facts:
                return
            groups = {group.key: (group, of) for group, of in grouped(grouping, facts).items()}
            labels = [group.labels for group, _ in groups.values()]
            found = await transaction.rows("open_groups", rule.name, list(groups), labels)
            members = [
                (fact.effect, row["group_id"], not row["is_led"] and number == 0)
                for row in found
                for number, fact in enumerate(groups[row["key"]][1])
            ]
            columns = [list(column) for column in zip(*members, strict=True)]
            await transaction.rows("join_groups", *columns, grouping.wait_s)

    async def settle(self, effect: Effect, jobs_max: int, every_s: float) -> Settled | None:
        """Settles who is of the message of an effect that leads a group; the others gather on.
        None: it leads none, or is another's by now."""
        async with self._pg.transaction(
            before="before_fix_message", after="after_fix_message"
        ) as transaction:
            if not await transaction.rows("lock_group", effect.group, effect.id, effect.lease):
                return None
            asked = (effect.group, effect.id, jobs_max, event_of_many(effect.event), every_s)
            ((dedupe, event, labels),) = await transaction.rows("fix_message", *asked)
            return Settled(dedupe, event, labels)

    async def told(self, effect: Effect, samples_max: int) -> Told:
        """What the settled message of an effect tells of."""
        (count, first, last), *_ = await self._pg.read("message_size", effect.id)
        found = await self._pg.read("message_samples", effect.id, samples_max)
        samples = [(End(JobId(row[0]), row[1], State(row[2])), row[3], row[4]) for row in found]
        return Told(count, first, last, samples)

    async def rejoin(self, effect: Effect) -> None:
        """Lets a member that was claimed by itself wait on."""
        await self._pg.rows("rejoin", effect.id, effect.lease)

    async def tidy(self) -> None:
        """Finds a leader for groups whose own is gone, and forgets those that have rested."""
        await self._pg.rows("mend_groups")
        await self._pg.rows("forget_groups")
