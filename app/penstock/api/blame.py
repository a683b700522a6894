"""What is wrong with the fields of a body, in the words of the house.

In: what pydantic found, or what it can't find. Out: faults with pointers. Always holds: a field
that only the server sets or that isn't built yet is told apart from one that nobody knows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import TypeAdapter, ValidationError

from penstock.api.fields import said_of
from penstock.api.job_body import EITHER, NAMES_MAX
from penstock.api.problems import ERRORS_MAX, Fault, Problem, named
from penstock.domain.graph import repeated
from penstock.domain.pointer import step

NOT_YET = "is not supported yet"
_SET_BY_SERVER = {
    *("id", "state", "result", "error", "attempt", "failures", "crashes", "progress"),
    *("worker", "created_at", "created_by", "started_at", "finished_at", "workflow_id"),
    *("cancel_reason", "counts", "halt", "held_by"),
}
_NOT_BUILT = {"concurrency_key"}


def blamed(error: ValidationError, at: str) -> list[Fault]:
    """A fault for each of pydantic's errors, below `at`."""
    found = error.errors(include_url=False, include_input=False)
    return [Fault(at + "".join(map(step, one["loc"])), _detail(one)) for one in found]


def strangers(names: Iterable[str], known: frozenset[str], at: str) -> list[Fault]:
    """A fault for each name that isn't known, as many as make an answer full: where there are so
    many that pydantic had better not describe all of them."""
    strange = (name for name in names if name not in known)
    return [Fault(at + step(n), _unknown((n,))) for n in islice(strange, ERRORS_MAX + 1)]


def contradictions(body: Mapping[str, Any], at: str) -> Iterator[Fault]:
    """Fields of a job that don't go together."""
    for one, other in EITHER:
        if one in body and other in body:
            yield Fault(f"{at}/{other}", f"give {one} or {other}, not both")
    if "on_conflict" in body and "unique_key" not in body:
        yield Fault(f"{at}/on_conflict", "needs a unique_key")
    if "run_if" in body and not body.get("depends_on"):
        yield Fault(f"{at}/run_if", "needs depends_on")


def parents_twice(names: Sequence[str], at: str) -> list[Fault]:
    """A fault for each parent that stands twice in the depends_on of a job."""
    return [Fault(f"{at}/depends_on/{n}", "stands there twice") for n in repeated(names)]


def head_faults(body: Mapping[str, Any], adapter: TypeAdapter[Any]) -> list[Fault]:
    """What is wrong with the fields of a workflow, its jobs aside."""
    head = {name: value for name, value in body.items() if name != "jobs"}
    if len(head) > NAMES_MAX:
        return strangers(head, frozenset({"name", "on_failure", "notify"}), "")
    try:
        adapter.validator.validate_python(head)
    except ValidationError as error:
        return blamed(error, "")
    return []


def validated(adapter: TypeAdapter[Any], body: Any) -> Any:
    """The fields of a small body. Raises 422."""
    try:
        return adapter.validator.validate_python(body)
    except ValidationError as error:
        raise refusal(blamed(error, "")) from None


def refusal(faults: Sequence[Fault]) -> Problem:
    """What a request is refused with that has faults."""
    unbuilt = all(fault.detail == NOT_YET for fault in faults)
    return named("not-supported-yet" if unbuilt else "validation-failed", faults)


def _detail(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(error["loc"])
    is_an_end = error["type"] == "literal_error" and error["loc"][-2:-1] == ("on",)
    return said_of(error) + (" (of a workflow, dead means failed)" if is_an_end else "")


def _unknown(where: tuple[str | int, ...]) -> str:
    name = where[-1] if len(where) == 1 else None
    if name in _SET_BY_SERVER:
        return "is set by the server"
    if name == "traceparent":
        return "is taken from the header of that name"
    if name == "name":
        return "is for jobs of workflows: see POST /v1/workflows"
    return NOT_YET if name in _NOT_BUILT else "is not a known field"
