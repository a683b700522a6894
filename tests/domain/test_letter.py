"""New lives: what they change."""

import pytest

from penstock.domain.letter import RETRY, Renewal, Resolution


@pytest.mark.parametrize(
    ("renewal", "changes"),
    [
        (Renewal(), False),
        (Renewal("ada", Resolution.REPLAYED, delay_s=1.0), False),
        (Renewal(payload="null"), True),
        (Renewal(queue="other"), True),
    ],
)
def test_a_new_life_changes_what_it_names(renewal: Renewal, changes: bool) -> None:
    assert renewal.changes is changes


def test_who_just_retries_resolves_as_retried() -> None:
    assert (RETRY.how, RETRY.only, RETRY.by) == (Resolution.RETRIED, None, "")
