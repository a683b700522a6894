"""Where a check of schemathesis assumes what JSON Schema can't say. Loaded by schemathesis itself.

"Data that the schema allows must be accepted" is held for everything but the rules below. Such
cases are sent all the same: they must be refused as documented, only not accepted.
"""

import itertools
import re
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure

from penstock.api.openapi_parts import REQUEST_HEADERS

EXAMPLE_KEY = REQUEST_HEADERS["Idempotency-Key"]["example"]

# Details of faults, each a rule that a schema has no words for.
RULES_BEYOND_A_SCHEMA = {
    "must be at most five years ahead": "a limit that moves with the clock",
    "is not a time that exists": "the format date-time has leap seconds, Python has none",
    "must be later than when the job may run first": "one field compared with another",
    "is nested more than 32 levels deep": "the depth of any JSON",
    "has a NUL in it": "a string anywhere in any JSON",
    "has a name with a NUL in it": "the same of a name",
    "is an integer beyond ±2^53": "a number anywhere in any JSON",
    "has an integer beyond ±2^53": "the same, where it is no double either",
    "no rule of that name is configured (notifications.rules)": "a name of something else",
}

# The same where the detail names something: how it goes, and why.
FORMS_BEYOND_A_SCHEMA = {
    r"is the name of /jobs/\d+ too": "names are unique in a list of objects",
    r"there is no job .*": "a name or an id of something else",
    r"is the job itself": "one field compared with another",
    r"stands there twice": "ids are the same in any case",
    r"makes a cycle: .*": "how objects hang together",
    r"can never hold: .* is never skipped": "the same",
    r"have \d+ dependencies; .*": "a sum over lists",
    r"is a workflow in \d+ others, which is one too many": "depth of one kind of object",
    r"must be a workflow, .*": "what a payload has to be for one kind",
    r".* is not in depends_on": "one field compared with another",
    r"\$result must be .*|an object with \$result .*": "an object anywhere in any JSON",
    r"can't be served: .*": "channels that this server has",
    r"must be one plain address .*|must end in the name of a domain, .*": "an address to mail to",
    r"(the URL|port \d+|\S+ is refused:) .*": "a URL that is called",
    r"is told already: .*": "one field compared with another",
    r"a JSON Pointer is .*|in a JSON Pointer .*|pointer must be .*": "the same",
}

# Where a fault lies, each a place that a schema says nothing of.
PLACES_BEYOND_A_SCHEMA = {
    r"(/jobs/\d+)?/payload/.*": "what a payload has to be for one kind",
}

# Types of problems, each a rule about more than one request.
RULES_ACROSS_REQUESTS = {
    "/problems/idempotency-key-reuse": "a key belongs to the first body that came with it",
}


_numbers = itertools.count()


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """What only an answer can give isn't made up, and a key is new each time, as its text says.

    Not in cases that are wrong on purpose: a change here would hide what is wrong with them.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.headers.get("Idempotency-Key") == EXAMPLE_KEY:
        case.headers["Idempotency-Key"] = f"{EXAMPLE_KEY}-{next(_numbers)}"
    if "cursor" in case.query:
        del case.query["cursor"]


@schemathesis.hook
def filter_failure(
    context: HookContext, failure: Failure, case: Case[Any], response: Response
) -> bool:
    """Whether the failure is one."""
    return failure.code != "ST202" or not _breaks_another_rule(response)


def _breaks_another_rule(response: Response) -> bool:
    problem: dict[str, Any] = response.json()
    if problem["type"] in RULES_ACROSS_REQUESTS:
        return True
    faults = problem.get("errors", [])
    return bool(faults) and all(map(_is_beyond, faults))


def _is_beyond(fault: dict[str, str]) -> bool:
    detail, pointer = fault["detail"], fault["pointer"]
    forms = (re.fullmatch(form, detail, re.DOTALL) for form in FORMS_BEYOND_A_SCHEMA)
    places = (re.fullmatch(place, pointer, re.DOTALL) for place in PLACES_BEYOND_A_SCHEMA)
    return detail in RULES_BEYOND_A_SCHEMA or any(forms) or any(places)
