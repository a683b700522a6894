"""Which effects one message tells of."""

import json
from datetime import timedelta
from typing import Any

import pytest

from penstock.domain.grouping import By, Fact, Grouping, event_of_many, grouped, tells_of_many
from tests.support.making import NOON

DEAD = "penstock.job.dead.v1"


def fact(number: int, **fields: Any) -> Fact:
    made: dict[str, Any] = {
        "event": DEAD,
        "queue": "billing",
        "kind": "charge",
        "error_type": "timeout",
        "fingerprint": "f1",
        **fields,
    }
    return Fact(bytes([number]), at=NOON + timedelta(seconds=number), **made)


@pytest.mark.parametrize(
    ("by", "other", "together"),
    [
        ((), {"queue": "mail", "kind": "k", "error_type": "e", "fingerprint": "f2"}, True),
        ((By.QUEUE,), {"kind": "k"}, True),
        ((By.QUEUE,), {"queue": "mail"}, False),
        ((By.KIND, By.ERROR_TYPE), {"queue": "mail", "fingerprint": "f2"}, True),
        ((By.KIND, By.ERROR_TYPE), {"error_type": "e"}, False),
        ((By.FINGERPRINT,), {"fingerprint": "f2"}, False),
        ((By.ERROR_TYPE,), {"error_type": None}, False),
        ((), {"event": "penstock.job.cancelled.v1"}, False),
    ],
)
def test_what_all_of_by_is_the_same_for_is_one_group(
    by: tuple[By, ...], other: dict[str, Any], together: bool
) -> None:
    groups = grouped(Grouping(by), [fact(1), fact(2, **other)])
    assert len(groups) == (1 if together else 2)


def test_labels_are_what_members_have_in_common_and_the_oldest_comes_first() -> None:
    ((group, of),) = grouped(Grouping((By.ERROR_TYPE, By.KIND)), [fact(2), fact(1)]).items()
    assert json.loads(group.labels) == {"kind": "charge", "error_type": "timeout"}
    assert [one.effect for one in of] == [b"\x01", b"\x02"]
    ((same, _),) = grouped(Grouping((By.KIND, By.ERROR_TYPE)), [fact(3)]).items()
    assert same == group, "whatever the order of `by`"


def test_a_message_of_many_has_a_type_of_its_own() -> None:
    assert event_of_many(DEAD) == "penstock.jobs.dead.v1"
    assert event_of_many("penstock.jobs.dead.v1") == "penstock.jobs.dead.v1"
    assert tells_of_many(event_of_many("penstock.job.recovered.v1"))
    assert not tells_of_many(DEAD)
