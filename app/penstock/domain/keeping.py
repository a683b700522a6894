"""How long ended jobs are kept: as their kind says, else their queue, else as all. Pure.

Jobs that are kept equally long make one group, which is pruned by itself: the oldest first, as far
as its age reaches. A queue that isn't known yet is in no group: nothing of it goes until it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.domain.defaults import matching


@dataclass(frozen=True, slots=True)
class Whose:
    """Jobs of these kinds, and, where their kind is none of `kinds_apart`, of these queues."""

    kinds_apart: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()


EVERYBODY = Whose()


@dataclass(frozen=True, slots=True)
class Kept:
    """How long jobs of one state are kept, in seconds; 0: for ever. Kinds by name, queues by name
    or glob."""

    all_s: float
    kinds: Mapping[str, float] = field(default_factory=dict)
    queues: Mapping[str, float] = field(default_factory=dict)

    def groups(self, queues: Iterable[str]) -> list[tuple[float, Whose]]:
        """Who goes at which age, of all the queues that there are."""
        if not self.kinds and not self.queues:
            return [(self.all_s, EVERYBODY)] if self.all_s else []
        of_kinds, of_queues = dict(self.kinds), {name: self._of_queue(name) for name in queues}
        ages = sorted({*of_kinds.values(), *of_queues.values()} - {0.0})
        return [
            (
                age,
                Whose(
                    tuple(of_kinds),
                    tuple(name for name, kept in of_kinds.items() if kept == age),
                    tuple(name for name, kept in of_queues.items() if kept == age),
                ),
            )
            for age in ages
        ]

    @property
    def needs_queues(self) -> bool:
        return bool(self.kinds or self.queues)

    def _of_queue(self, name: str) -> float:
        said = matching(self.queues, name)
        return self.queues[said[0]] if said else self.all_s
