"""What may be submitted: one JSON object becomes one `NewJob`, or a list of faults.

In: a decoded object. Out: `NewJob`, its payload encoded once. Always holds: every bad field is
named at once; a field that only the server sets, that isn't built yet or that nobody knows is
refused, never ignored; `null` is a value like any other and stands for no default.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import ValidationError

from penstock.api.bodies import payload_text
from penstock.api.door import Door
from penstock.api.fields import said_of
from penstock.api.job_body import EITHER, JOB_BODY, NAMES_MAX, BackoffBody, JobBody
from penstock.api.problems import ERRORS_MAX, Fault, Problem, named
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, OnLost
from penstock.domain.pointer import step
from penstock.domain.retry import DEFAULT_BACKOFF, Backoff, Curve, Jitter

_SET_BY_SERVER = {
    *("id", "state", "result", "error", "attempt", "failures", "crashes", "progress"),
    *(
        "worker",
        "created_at",
        "created_by",
        "started_at",
        "finished_at",
        "workflow_id",
        "cancel_reason",
    ),
}
_NOT_BUILT = {
    *("concurrency_key", "depends_on", "run_if", "notify", "name"),
}
NOT_YET = "is not supported yet"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the jobs of a request come from. `suspect`: see `bodies.Body`."""

    created_by: str
    traceparent: str | None
    suspect: bool


class Intake:
    """Takes in the jobs of one request. `faults` gathers what is wrong, by pointer, and `twins`
    the jobs that have the unique key of another of the same request.

    `now_ms` is Postgres' time; without it, instants may lie anywhere.
    """

    def __init__(self, door: Door, origin: Origin, now_ms: int | None) -> None:
        self._door = door
        self._origin = origin
        self._now_ms = now_ms
        self._places: dict[tuple[str, str], str] = {}  # of unique keys
        self._seen: tuple[str | None, list[Fault]] | None = None
        self.suspect = origin.suspect
        self.faults: list[Fault] = []
        self.twins: list[Fault] = []

    @property
    def is_full(self) -> bool:
        """More faults than one answer names: the rest need not be looked for."""
        return len(self.faults) > ERRORS_MAX

    def take(self, value: Any, at: str = "") -> NewJob | None:
        """The job that `value` asks for, or None after its faults were noted below `at`."""
        if isinstance(value, dict) and len(value) > NAMES_MAX:
            self._refuse_names(value, at)
            return None
        try:
            body = JOB_BODY.validator.validate_python(value, context=self._now_ms)
        except ValidationError as error:
            self._blame(error, at)
            if isinstance(value, dict):
                self._payload(value, at)
                self.faults.extend(_contradictions(value, at))
            return None
        payload = self._payload(body, at)
        wrong = [*_contradictions(body, at), *self._too_late(body, at)]
        self.faults.extend(wrong)
        if wrong or payload is None:
            return None
        job = self._job(body, payload)
        if job.unique_key is not None:
            self._note_twin((job.queue, job.unique_key), at)
        return job

    @property
    def is_clean(self) -> bool:
        """Nothing is wrong with what was taken."""
        return not self.faults and not self.twins

    def refusal(self) -> Problem:
        """What a request is refused with that isn't clean."""
        if not self.faults:
            return named("duplicate-job", self.twins)
        unbuilt = all(fault.detail == NOT_YET for fault in self.faults)
        return named("not-supported-yet" if unbuilt else "validation-failed", self.faults)

    def look_ahead(self, value: Any) -> None:
        """Checks the payload of the value that is taken next: the part that may take long."""
        if isinstance(value, dict):
            self._seen = self._look(value)

    def _job(self, body: JobBody, payload: str) -> NewJob:
        door, defaults = self._door, self._door.defaults
        return NewJob(
            id=JobId(door.minter.mint()),
            queue=body.get("queue", defaults.queue),
            kind=body["kind"],
            payload=payload,
            priority=body.get("priority", defaults.priority),
            run_at=body.get("run_at"),
            delay_s=body.get("delay_s"),
            expires_at=body.get("expires_at"),
            ttl_s=body.get("ttl_s"),
            unique_key=body.get("unique_key"),
            return_holder=body.get("on_conflict") == "return",
            max_attempts=body.get("max_attempts", defaults.max_attempts),
            backoff=_backoff(body["backoff"]) if "backoff" in body else DEFAULT_BACKOFF,
            timeout_s=body.get("timeout_s", defaults.timeout_s),
            on_lost=OnLost(body["on_lost"]) if "on_lost" in body else OnLost.RETRY,
            tags=tuple(body["tags"]) if "tags" in body else (),
            traceparent=self._origin.traceparent,
            created_by=self._origin.created_by,
        )

    def _payload(self, body: Mapping[str, Any], at: str) -> str | None:
        text, faults = self._seen or self._look(body)
        self._seen = None
        self.faults.extend(Fault(f"{at}/payload{f.pointer}", f.detail) for f in faults)
        return text

    def _look(self, body: Mapping[str, Any]) -> tuple[str | None, list[Fault]]:
        """The payload's text, or what is wrong with it. Touches nothing: it may be in a thread."""
        payload, kind = body.get("payload"), body.get("kind")
        text = payload_text(payload, suspect=self.suspect)
        if not isinstance(text, str):
            return None, text
        wrong = self._door.payload_errors(kind, payload) if isinstance(kind, str) else ()
        if not wrong:
            return text, []
        lacks = "payload" not in body
        found = [Fault(at, said if at or not lacks else "is required") for at, said in wrong]
        return None, found

    def _refuse_names(self, value: Mapping[str, Any], at: str) -> None:
        """For more names than a job has fields: pydantic would describe every one of them."""
        self._seen = None
        strange = (name for name in value if name not in JobBody.__annotations__)
        for name in islice(strange, ERRORS_MAX + 1):
            self.faults.append(Fault(at + step(name), _unknown((name,))))

    def _too_late(self, body: JobBody, at: str) -> Iterator[Fault]:
        """An expiry that leaves the job no time to start in."""
        if self._now_ms is None or ("expires_at" not in body and "ttl_s" not in body):
            return
        now = datetime.fromtimestamp(self._now_ms / 1000, UTC)
        runs = max(body.get("run_at", now), now) + timedelta(seconds=body.get("delay_s", 0.0))
        if "ttl_s" in body:
            name, expires = "ttl_s", now + timedelta(seconds=body["ttl_s"])
        else:
            name, expires = "expires_at", body["expires_at"]
        if expires <= runs:
            yield Fault(f"{at}/{name}", "must be later than when the job may run first")

    def _note_twin(self, key: tuple[str, str], at: str) -> None:
        first = self._places.setdefault(key, at)
        if first != at:
            self.twins.append(Fault(f"{at}/unique_key", f"is that of {first} too"))

    def _blame(self, error: ValidationError, at: str) -> None:
        found = error.errors(include_url=False, include_input=False)
        for one in found:
            pointer = at + "".join(map(step, one["loc"]))
            self.faults.append(Fault(pointer, _detail(one)))


def _contradictions(body: Mapping[str, Any], at: str) -> Iterator[Fault]:
    for one, other in EITHER:
        if one in body and other in body:
            yield Fault(f"{at}/{other}", f"give {one} or {other}, not both")
    if "on_conflict" in body and "unique_key" not in body:
        yield Fault(f"{at}/on_conflict", "needs a unique_key")


def _backoff(body: BackoffBody) -> Backoff:
    default = DEFAULT_BACKOFF
    return Backoff(
        kind=Curve(body.get("kind", default.kind)),
        base_s=body.get("base_s", default.base_s),
        factor=body.get("factor", default.factor),
        max_s=body.get("max_s", default.max_s),
        jitter=Jitter(body.get("jitter", default.jitter)),
    )


def _detail(error: Mapping[str, Any]) -> str:
    return _unknown(error["loc"]) if error["type"] == "extra_forbidden" else said_of(error)


def _unknown(where: tuple[str | int, ...]) -> str:
    name = where[-1] if len(where) == 1 else None
    if name in _SET_BY_SERVER:
        return "is set by the server"
    if name == "traceparent":
        return "is taken from the header of that name"
    return NOT_YET if name in _NOT_BUILT else "is not a known field"
