"""The submission log: what callers know of each of their requests, three outcomes and no more.

Each request marks its jobs with a tag of its own, so that what was refused can be shown to be
absent, and what nobody knows of can be found. A request that repeats another's Idempotency-Key has
its body, and so its marker. Every line is also written to a file, where one is named.
"""

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.support.checker import Said, Submitted

REFUSED = -1  # the status of a request that was never sent: nobody listened
NO_ANSWER = 0


class SubmissionLog:
    """`requests`, in the order in which they ended; `accepted`: the ids of all that was stored."""

    def __init__(self, path: Path | None = None) -> None:
        self.requests: list[Submitted] = []
        self.accepted: set[str] = set()
        self._file = path.open("ab", buffering=0) if path is not None else None
        self._numbers = itertools.count(1)
        self._unknown: dict[str, int] = {}  # markers and their jobs

    @property
    def unknown(self) -> int:
        """Of how many jobs nobody knows whether they were accepted."""
        return sum(self._unknown.values())

    def marker(self) -> str:
        """A tag that no other request has."""
        return f"s-{next(self._numbers)}"

    def add(self, submitted: Submitted, status: int) -> None:
        """`status`: of the answer; REFUSED or NO_ANSWER where there was none."""
        self.requests.append(submitted)
        if submitted.said is Said.OK:
            self.accepted.update(submitted.ids)
            self._unknown.pop(submitted.marker, None)
        elif submitted.said is Said.UNKNOWN:
            self._unknown[submitted.marker] = submitted.count
        if self._file is not None:
            self._file.write(_line(submitted, status))

    def forget(self, ids: list[str]) -> None:
        """A test has deleted these behind everybody's back."""
        gone = set(ids)
        self.accepted -= gone
        self.requests = [one for one in self.requests if gone.isdisjoint(one.ids)]

    def counts(self) -> dict[str, int]:
        """How many requests had each outcome."""
        found = Counter(one.said for one in self.requests)
        return {str(said): found[said] for said in Said}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def judged(status: int, answer: Any) -> Said:
    """What a caller knows after this answer."""
    if status == 201:
        return Said.OK
    if status in (NO_ANSWER, 500, 502, 504):
        return Said.UNKNOWN
    problem: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    is_open = problem.get("outcome") == "unknown"
    is_busy = str(problem.get("type", "")).endswith("idempotency-key-in-progress")
    return Said.UNKNOWN if is_open or is_busy else Said.FAILED


def _line(submitted: Submitted, status: int) -> bytes:
    line = {
        "t": time.time(),
        "marker": submitted.marker,
        "said": str(submitted.said),
        "status": status,
        "count": submitted.count,
        "key": submitted.key,
        "ids": submitted.ids,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
