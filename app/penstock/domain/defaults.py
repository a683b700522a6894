"""What a job gets that doesn't say it itself: by its kind, else by its queue, else as all jobs.

Pure. In: what the configuration says of kinds and of queues, a layer each. Out: `Defaults`, every
field decided. Each field goes by itself, those of a back-off too: a kind may say how long to wait
and the queue how often to try.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from penstock.domain.effect import Wish
from penstock.domain.job import OnLost, State
from penstock.domain.retry import DEFAULT_BACKOFF, Backoff

QUEUE = "default"

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Defaults:
    """Of a kind in a queue. `ttl_s` None: it doesn't expire. `strict`: unknown kinds are refused.
    What a job says of its own back-off goes into `backoff`, field by field."""

    queue: str = QUEUE
    priority: int = 5
    max_attempts: int = 5
    backoff: Backoff = DEFAULT_BACKOFF
    timeout_s: float = 300.0
    on_lost: OnLost = OnLost.RETRY
    ttl_s: float | None = None
    notify: tuple[Wish, ...] = ()
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """What one kind or one queue says: fields of `Defaults`, of its back-off, and how many seconds
    ended jobs are kept. What isn't there is left to the next layer."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    backoff: Mapping[str, Any] = field(default_factory=dict)
    kept_s: Mapping[State, float] = field(default_factory=dict)


NOTHING = Layer()


@dataclass(frozen=True, slots=True)
class Book:
    """The configuration's layers: kinds by name, queues by name or glob."""

    jobs: Defaults = field(default_factory=Defaults)
    kinds: Mapping[str, Layer] = field(default_factory=dict)
    queues: Mapping[str, Layer] = field(default_factory=dict)

    def resolve(self, kind: str, queue: str | None = None) -> Defaults:
        """What a job of this kind gets, submitted to this queue, or to none in particular."""
        own = self.kinds.get(kind, NOTHING)
        queue = queue or own.fields.get("queue", self.jobs.queue)
        fields: dict[str, Any] = {}
        backoff: dict[str, Any] = {}
        for layer in self._layers(kind, queue):
            fields |= layer.fields
            backoff |= layer.backoff
        fields["queue"] = queue
        return replace(self.jobs, **fields, backoff=replace(self.jobs.backoff, **backoff))

    @property
    def keeps(self) -> bool:
        """Whether there is anything that says how long jobs are kept."""
        return any(layer.kept_s for layer in (*self.kinds.values(), *self.queues.values()))

    def kept_s(self, kind: str, queue: str) -> Mapping[State, float]:
        """How long ended jobs of a kind in a queue are kept, where they say so."""
        kept: dict[State, float] = {}
        for layer in self._layers(kind, queue):
            kept |= layer.kept_s
        return kept

    def _layers(self, kind: str, queue: str) -> list[Layer]:
        """The one that counts most is the last."""
        queues = [self.queues[name] for name in matching(self.queues, queue)]
        return [*reversed(queues), self.kinds.get(kind, NOTHING)]


NOTHING_SAID = Book()


def matching(patterns: Iterable[str], name: str) -> list[str]:
    """Those that a queue's name matches, which comes first: the name itself, then the globs with
    the most that is no wildcard, then by alphabet."""
    found = [one for one in patterns if one == name or fnmatchcase(name, one)]
    return sorted(found, key=lambda one: (one != name, -_literals(one), one))


def _literals(pattern: str) -> int:
    return sum(char not in _GLOB for char in pattern)
