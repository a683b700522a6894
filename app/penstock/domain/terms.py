"""What a job goes by that doesn't say it itself, as things stand. Pure, but for `Current.terms`,
which a reload of the settings exchanges.

Of what a job left out, `max_attempts`, `backoff` and `timeout_s` follow the settings as long as it
lives: `follows` is the sum of those that do. The job's own are then what counted when it was
submitted, and `followed` puts in what counts by now. All else is settled when it is submitted.
"""

from collections.abc import Callable, Container
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from penstock.domain.defaults import Book, Defaults
from penstock.domain.job import Started
from penstock.domain.view import JobView
from penstock.domain.workflow import KIND

MAX_ATTEMPTS, BACKOFF, TIMEOUT = 1, 2, 4  # in `follows`
FOLLOWED = {"max_attempts": MAX_ATTEMPTS, "backoff": BACKOFF, "timeout_s": TIMEOUT}
ALL = sum(FOLLOWED.values())
_KNOWN_MAX = 4096  # pairs of kind and queue that are remembered: callers choose their names

J = TypeVar("J", Started, JobView)


class Terms:
    """What counts for each kind and queue, by one book that never changes. `served`: the kinds that
    have a handler here; none other is known but those that the book tells of."""

    def __init__(self, book: Book, served: Container[str] = ()) -> None:
        self.book = book
        self._served = served
        # Whether unknown kinds are refused anywhere; most servers take all.
        self.may_refuse = book.jobs.strict or any(
            layer.fields.get("strict") for layer in book.queues.values()
        )
        self.of: Callable[[str, str | None], Defaults] = lru_cache(_KNOWN_MAX)(book.resolve)

    def knows(self, kind: str) -> bool:
        return kind == KIND or kind in self._served or kind in self.book.kinds


class Current:
    """The terms that count just now; `terms` is exchanged as a whole."""

    def __init__(self, terms: Terms | None = None) -> None:
        self.terms = terms or Terms(Book())

    def followed(self, job: J) -> J:
        """A job with what the configuration says of it by now."""
        return followed(job, self.terms.of(job.kind, job.queue)) if job.follows else job


def followed(job: J, defaults: Defaults) -> J:
    """A job that goes by these in what it follows."""
    follows = job.follows
    max_attempts = defaults.max_attempts if follows & MAX_ATTEMPTS else job.max_attempts
    backoff = defaults.backoff if follows & BACKOFF else job.backoff
    timeout_s = defaults.timeout_s if follows & TIMEOUT else job.timeout_s
    if (max_attempts, backoff, timeout_s) == (job.max_attempts, job.backoff, job.timeout_s):
        return job
    return replace(job, max_attempts=max_attempts, backoff=backoff, timeout_s=timeout_s)
