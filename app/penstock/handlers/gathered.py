"""The jobs that a handler submits: gathered here while it runs, stored when it has succeeded.

In: calls from any thread. Out: JSON texts, one a job, in the order of the calls, which numbers
them. Always holds: they are bounded, and what comes after they were taken is refused, not lost.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from penstock.handlers.errors import PermanentError
from penstock.handlers.results import encode

REFUSED = "children-refused"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one attempt may take in and hand on: its payload with parents' results in place,
    and what it submits."""

    payload_max_bytes: int = 16 * 1024 * 1024
    submit_max: int = 10_000
    submit_max_bytes: int = 16 * 1024 * 1024


class Gathered:
    __slots__ = ("_bounds", "_bytes", "_jobs", "_lock", "_taken")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._jobs: list[bytes] = []
        self._bytes = 0
        self._taken = False
        self._lock = threading.Lock()

    def add(self, job: dict[str, Any], name_of: Callable[[int], str | None]) -> int:
        """Keeps a job as POST /v1/jobs takes it, and answers its number, from 1. One without a
        `name` gets `name_of(number)`.

        Raises PermanentError when there are too many, ValueError for what is no JSON, RuntimeError
        when the attempt is over.
        """
        # Before the lock: foreign objects may take their time. What they are now is kept.
        fields: dict[str, Any] = {key: orjson.Fragment(encode(value)) for key, value in job.items()}
        with self._lock:
            ordinal = len(self._jobs) + 1
            if "name" not in fields and (name := name_of(ordinal)) is not None:
                fields["name"] = name
            self._keep(orjson.dumps(fields))
        return ordinal

    def take(self) -> list[bytes]:
        """All of them; from here on there are no more."""
        with self._lock:
            self._taken = True
            jobs, self._jobs = self._jobs, []
        return jobs

    def hear(self, jobs: Sequence[str]) -> None:
        """Those that were gathered by a child process. Raises what `add` raises."""
        with self._lock:
            for job in jobs:
                self._keep(job.encode())

    def _keep(self, text: bytes) -> None:
        bounds = self._bounds
        if self._taken:
            raise RuntimeError("the attempt is over: await what submits before the handler returns")
        if len(self._jobs) >= bounds.submit_max:
            raise PermanentError(f"a job may submit {bounds.submit_max} jobs at most", REFUSED)
        if self._bytes + len(text) > bounds.submit_max_bytes:
            most = f"{bounds.submit_max_bytes} bytes at most"
            raise PermanentError(f"the jobs that a job submits may have {most}", REFUSED)
        self._bytes += len(text)
        self._jobs.append(text)
