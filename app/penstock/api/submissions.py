"""What may be submitted: one JSON object becomes one `NewJob`, or a list of faults.

In: a decoded object. Out: `NewJob`, its payload encoded once. Always holds: every bad field is
named at once; a field that only the server sets, that isn't built yet or that nobody knows is
refused, never ignored; `null` is a value like any other and stands for no default. What a payload
of kind `workflow` holds is looked at in the same way, at any depth.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from math import inf
from typing import Any

from pydantic import ValidationError

from penstock.api import notices
from penstock.api.blame import (
    blamed,
    contradictions,
    head_faults,
    parents_twice,
    refusal,
    strangers,
)
from penstock.api.bodies import payload_text
from penstock.api.door import Recipe
from penstock.api.job_body import JOB, MEMBER, NAMES_MAX, BackoffBody, Form
from penstock.api.problems import ERRORS_MAX, Fault, Problem, named
from penstock.api.workflow_body import INNER_HEAD
from penstock.domain import graph, ids, nesting
from penstock.domain.effect import Wish, wishes_json
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob, OnLost
from penstock.domain.references import KEY, may_refer, references
from penstock.domain.retry import Backoff, Curve, Jitter
from penstock.domain.terms import ALL, FOLLOWED
from penstock.domain.workflow import KIND, RunIf

_RUN_IF = RunIf.ALL_SUCCEEDED.value
_STRICT = (
    "{kind!r} is no kind that is known here, and {queue} takes no others: give it a handler "
    "(handlers.modules) or an entry in kinds, or take back queues.{queue}.strict or "
    "jobs.strict_kinds"
)
_MISPLACED = "a reference may stand in the payloads of a workflow's jobs, nowhere else in it"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the jobs of a request come from. `suspect`: see `bodies.Body`. `workflow_id`: whose
    jobs they are. `traced_max`: so many of them are in the trace."""

    created_by: str
    traceparent: str | None
    suspect: bool
    workflow_id: JobId | None = None
    traced_max: float = inf


@dataclass(slots=True)
class Looked:
    """A payload that was looked at: its text, or what is wrong in it. `queues`: those that the
    jobs of a workflow in it go to, with the places of their first."""

    text: str | None = None
    faults: list[Fault] = field(default_factory=list)
    queues: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Around:
    """What a job is in: so many workflows, and the parents that its payload may refer to where it
    has none itself."""

    depth: int = 0
    parents: frozenset[str] = frozenset()


class Intake:
    """Takes in the jobs of one request. `faults` gathers what is wrong, by pointer, and `twins`
    the jobs that have the unique key of another of the same request; `inner_queues` the queues
    that workflows in payloads name, with the place of the first of each.

    `now_ms` is Postgres' time; without it, for a request that was good once, instants may lie
    anywhere and kinds are taken that are refused by now.
    """

    def __init__(
        self, recipe: Recipe, origin: Origin, now_ms: int | None, form: Form = JOB
    ) -> None:
        self._recipe = recipe
        self._origin = origin
        self._now_ms = now_ms
        self._form = form
        self._around = _Around(0 if form is JOB else 1)
        self._places: dict[tuple[str, str], str] = {}  # of unique keys
        self._seen: Looked | None = None
        self._traced = 0
        self.suspect = origin.suspect
        self.faults: list[Fault] = []
        self.twins: list[Fault] = []
        self.inner_queues: dict[str, str] = {}

    @property
    def is_full(self) -> bool:
        """More faults than one answer names: the rest need not be looked for."""
        return len(self.faults) > ERRORS_MAX

    def take(self, value: Any, at: str = "") -> NewJob | None:
        """The job that `value` asks for, or None after its faults were noted below `at`."""
        checked = self._checked(value, at)
        return None if checked is None else self._job(*checked)

    @property
    def is_clean(self) -> bool:
        """Nothing is wrong with what was taken."""
        return not self.faults and not self.twins

    def refusal(self) -> Problem:
        """What a request is refused with that isn't clean."""
        if not self.faults:
            return named("duplicate-job", self.twins)
        return refusal(self.faults)

    def look_ahead(self, value: Any) -> None:
        """Checks the payload of the value that is taken next: the part that may take long."""
        if isinstance(value, dict):
            self._seen = self._look(value)

    def _checked(self, value: Any, at: str) -> tuple[Mapping[str, Any], str] | None:
        """The fields of a job that has no fault, and its payload's text."""
        if isinstance(value, dict) and len(value) > NAMES_MAX:
            self._refuse_names(value, at)
            return None
        try:
            body = self._form.adapter.validator.validate_python(value, context=self._now_ms)
        except ValidationError as error:
            self.faults.extend(blamed(error, at))
            if isinstance(value, dict):
                self._payload(value, at)
                self.faults.extend(contradictions(value, at))
            return None
        payload = self._payload(body, at)
        wrong = [*contradictions(body, at), *self._too_late(body, at)]
        if self._form is JOB and "depends_on" in body:
            wrong += parents_twice([id_.lower() for id_ in body["depends_on"]], at)
        if self._recipe.terms.may_refuse and self._now_ms is not None:
            wrong += self._unknown(body, at)
        if "notify" in body:
            wrong += notices.faults(body["notify"], at, self._recipe.reach)
        if wrong or payload is None:
            self.faults.extend(wrong)
            return None
        if "unique_key" in body:
            self._note_twin((self._queue(body), body["unique_key"]), at)
        return body, payload

    def _job(self, body: Mapping[str, Any], payload: str) -> NewJob:
        recipe = self._recipe
        defaults = recipe.terms.of(body["kind"], body.get("queue"))
        expires_at, ttl_s = body.get("expires_at"), body.get("ttl_s")
        if defaults.ttl_s is not None and expires_at is None and ttl_s is None:
            expires_at, ttl_s = _expiry(body, defaults.ttl_s)
        parents = tuple(body["depends_on"]) if "depends_on" in body else ()
        is_loose = self._form is JOB
        return NewJob(
            id=JobId(recipe.mint()),
            queue=defaults.queue,
            kind=body["kind"],
            payload=payload,
            priority=body.get("priority", defaults.priority),
            run_at=body.get("run_at"),
            delay_s=body.get("delay_s"),
            expires_at=expires_at,
            ttl_s=ttl_s,
            unique_key=body.get("unique_key"),
            return_holder=body.get("on_conflict") == "return",
            max_attempts=body.get("max_attempts", defaults.max_attempts),
            backoff=_backoff(body, defaults.backoff) if "backoff" in body else defaults.backoff,
            timeout_s=body.get("timeout_s", defaults.timeout_s),
            on_lost=OnLost(body["on_lost"]) if "on_lost" in body else defaults.on_lost,
            tags=tuple(body["tags"]) if "tags" in body else (),
            traceparent=self._origin.traceparent and self._trace(),
            created_by=self._origin.created_by,
            workflow_id=self._origin.workflow_id,
            name=body.get("name"),
            depends_on=tuple(map(str.lower, parents)) if is_loose and parents else parents,
            parents=tuple(map(_id, parents)) if is_loose and parents else (),
            run_if=body.get("run_if", _RUN_IF),
            notify=notices.text(body["notify"]) if "notify" in body else _notice(defaults.notify),
            follows=ALL if body.keys().isdisjoint(FOLLOWED) else _follows(body),
        )

    def _trace(self) -> str | None:
        self._traced += 1
        return self._origin.traceparent if self._traced <= self._origin.traced_max else None

    def _queue(self, body: Mapping[str, Any]) -> str:
        return self._recipe.terms.of(body["kind"], body.get("queue")).queue

    def _payload(self, body: Mapping[str, Any], at: str) -> str | None:
        looked = self._seen or self._look(body)
        self._seen = None
        if looked.faults:
            self.faults.extend(Fault(f"{at}/payload{f.pointer}", f.detail) for f in looked.faults)
        for queue, place in looked.queues.items():
            self.inner_queues.setdefault(queue, f"{at}/payload{place}")
        return looked.text

    def _look(self, body: Mapping[str, Any]) -> Looked:
        """Looks at a payload. Touches nothing: it may be in a thread."""
        payload, kind = body.get("payload"), body.get("kind")
        text = payload_text(payload, suspect=self.suspect)
        if not isinstance(text, str):
            return Looked(faults=text)
        parents = self._around.parents
        if "depends_on" in body:
            parents = self._parents(body) or parents
        # By itself and without parents a job has no references: it may send what it likes.
        refers = (bool(parents) or self._form is not JOB) and may_refer(text)
        looked = Looked(text)
        if kind == KIND:
            self._look_inside(payload, parents, looked)
            if refers:
                looked.faults += _misplaced(payload)
        elif not (refers and _refers(payload, parents, looked.faults)) and isinstance(kind, str):
            lacks = "payload" not in body
            for at, said in self._recipe.payload_errors(kind, payload):
                looked.faults.append(Fault(at, said if at or not lacks else "is required"))
        if looked.faults:
            looked.text = None
        return looked

    def _parents(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Whom a payload may refer to; of a body that may have faults."""
        names = body.get("depends_on")
        if not names or not isinstance(names, list):
            return frozenset()
        texts = (name for name in names if isinstance(name, str))
        return frozenset(map(str.lower, texts) if self._form is JOB else texts)

    def _look_inside(self, payload: Any, parents: frozenset[str], looked: Looked) -> None:
        """A workflow in a payload, looked at as if it were submitted by itself."""
        depth = self._around.depth + 1
        values = inner_jobs(payload, looked.faults)
        if depth > graph.DEPTH_MAX:
            told = f"is a workflow in {graph.DEPTH_MAX} others, which is one too many"
            looked.faults.append(Fault("", told))
        if looked.faults:
            return
        origin = replace(self._origin, suspect=False)  # all of the payload has been looked at
        inner = Intake(self._recipe, origin, self._now_ms, MEMBER)
        inner._around = _Around(depth, parents)
        hidden = parents & _names(values)  # a job beside it may be what was meant
        nodes = []
        for i, value in enumerate(values):
            if hidden:
                inner._around = _Around(depth, parents - (hidden - _names([value])))
            checked = inner._checked(value, f"/jobs/{i}")
            if checked is not None:
                body, _ = checked
                looked.queues.setdefault(inner._queue(body), f"/jobs/{i}/queue")
                nodes.append(node_of(body))
            elif inner.is_full:
                break
        for queue, place in inner.inner_queues.items():
            looked.queues.setdefault(queue, place)
        looked.faults += inner.faults + inner.twins
        if not looked.faults:
            looked.faults += [Fault(*fault) for fault in graph.faults(nodes)]

    def _refuse_names(self, value: Mapping[str, Any], at: str) -> None:
        """For more names than a job has fields: pydantic would describe every one of them."""
        self._seen = None
        self.faults.extend(strangers(value, self._form.fields, at))

    def _too_late(self, body: Mapping[str, Any], at: str) -> Iterator[Fault]:
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

    def _unknown(self, body: Mapping[str, Any], at: str) -> Iterator[Fault]:
        """A kind that nobody knows, where that isn't taken."""
        terms, kind = self._recipe.terms, body["kind"]
        defaults = terms.of(kind, body.get("queue"))
        if defaults.strict and not terms.knows(kind):
            yield Fault(f"{at}/kind", _STRICT.format(kind=kind, queue=defaults.queue))

    def _note_twin(self, key: tuple[str, str], at: str) -> None:
        first = self._places.setdefault(key, at)
        if first != at:
            self.twins.append(Fault(f"{at}/unique_key", f"is that of {first} too"))


def node_of(body: Mapping[str, Any]) -> graph.Node:
    """A job of a workflow as its graph has it."""
    run_if = body.get("run_if", RunIf.ALL_SUCCEEDED)
    return graph.Node(body["name"], body.get("depends_on", ()), run_if)


def inner_jobs(payload: Any, faults: list[Fault]) -> list[Any]:
    """The jobs of a workflow in a payload, not looked into yet."""
    if not isinstance(payload, dict):
        faults.append(Fault("", "must be a workflow, as POST /v1/workflows takes it"))
        return []
    faults += head_faults(payload, INNER_HEAD)
    jobs = payload.get("jobs")
    if not isinstance(jobs, list):
        faults.append(Fault("/jobs", "must be a list" if "jobs" in payload else "is required"))
        return []
    if not 1 <= len(jobs) <= graph.JOBS_MAX:
        faults.append(Fault("/jobs", f"must have 1 to {graph.JOBS_MAX} jobs, has {len(jobs)}"))
    return jobs


def _names(values: Iterable[Any]) -> frozenset[str]:
    """The names of a workflow's jobs, which may have faults."""
    names = (value.get("name") for value in values if isinstance(value, dict))
    return frozenset(name for name in names if isinstance(name, str))


def _id(text: str) -> JobId:
    id_ = ids.parse(text)
    assert id_ is not None, text
    return id_


def _refers(payload: Any, parents: frozenset[str], faults: list[Fault]) -> bool:
    """Whether a payload has references, what is wrong with them goes to `faults`."""
    found = False
    for one in references(payload):
        found = True
        if one.fault is not None:
            faults.append(Fault(one.at, one.fault))
        elif one.name not in parents:
            told = f"{graph.short(one.name)!r} is not in depends_on"
            faults.append(Fault(f"{one.at}/{KEY}", told))
        if len(faults) > ERRORS_MAX:
            break
    return found


def _misplaced(payload: Any) -> list[Fault]:
    """References in a workflow that say what its jobs are: who may submit them couldn't be told."""
    found = (one.at for one in references(payload) if not nesting.is_inside(one.at))
    return [Fault(at, _MISPLACED) for at in islice(found, ERRORS_MAX + 1)]


def _expiry(body: Mapping[str, Any], default_s: float) -> tuple[datetime | None, float]:
    """`expires_at` and `ttl_s`, counted from when the job may run first. Where both are given, the
    later counts."""
    if "run_at" in body:
        return body["run_at"] + timedelta(seconds=default_s), default_s
    return None, body.get("delay_s", 0.0) + default_s


def _follows(body: Mapping[str, Any]) -> int:
    """What the settings say of the job as long as it lives."""
    return sum(bit for name, bit in FOLLOWED.items() if name not in body)


@lru_cache(maxsize=1024)
def _notice(wishes: tuple[Wish, ...]) -> str | None:
    return wishes_json(wishes)


def _backoff(asked: Mapping[str, Any], default: Backoff) -> Backoff:
    """What is asked for, field by field; from then on it is the job's own."""
    body: BackoffBody = asked["backoff"]
    return Backoff(
        kind=Curve(body.get("kind", default.kind)),
        base_s=body.get("base_s", default.base_s),
        factor=body.get("factor", default.factor),
        max_s=body.get("max_s", default.max_s),
        jitter=Jitter(body.get("jitter", default.jitter)),
    )
