"""Ids: UUIDv7 that grow."""

import itertools
import random
import uuid

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain import ids
from penstock.domain.ids import JobId, Minter

NOW_MS = 1_795_000_000_000


def minter(times: list[int]) -> Minter:
    left = iter(times)
    return Minter(lambda: next(left), random.Random(7).getrandbits)


@given(st.lists(st.integers(NOW_MS, NOW_MS + 5), min_size=2, max_size=200))
def test_ids_grow_even_when_the_clock_stands_or_goes_back(times: list[int]) -> None:
    one = minter(times)
    made = [one.mint() for _ in times]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_an_id_is_a_uuid_of_version_7_with_its_time_in_it() -> None:
    id_ = minter([NOW_MS]).mint()
    known = uuid.UUID(bytes=id_)
    assert (known.version, known.variant) == (7, uuid.RFC_4122)
    assert ids.created_ms(id_) == NOW_MS
    assert ids.text(id_) == str(known)


def test_the_least_id_of_a_millisecond_parts_what_was_minted_before_from_the_rest() -> None:
    one = minter([NOW_MS - 1, NOW_MS])
    before, then = one.mint(), one.mint()
    assert before < ids.least(NOW_MS) < then
    assert len(ids.least(NOW_MS)) == ids.BYTES


def test_what_is_minted_in_one_millisecond_can_not_be_counted_out() -> None:
    one = minter([NOW_MS] * 100)
    made = [int.from_bytes(one.mint(), "big") for _ in range(100)]
    steps = {after - before for before, after in itertools.pairwise(made)}
    assert len(steps) == 99


@given(st.uuids(version=4))
def test_text_and_bytes_go_into_each_other(value: uuid.UUID) -> None:
    assert ids.parse(str(value)) == value.bytes
    assert ids.parse(str(value).upper()) == value.bytes
    assert ids.text(value.bytes) == str(value)


@given(st.text(max_size=40))
def test_what_has_not_the_usual_form_is_no_id(text: str) -> None:
    try:
        usual = str(uuid.UUID(text)) == text.lower()
    except ValueError:
        usual = False
    assert (ids.parse(text) is not None) == usual


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_nth_job_of_a_job_has_one_id_of_its_own(one: int, other: int) -> None:
    job = JobId(minter([NOW_MS]).mint())
    known = uuid.UUID(bytes=ids.nth_of(job, one))
    assert (known.version, known.variant) == (7, uuid.RFC_4122)
    assert ids.created_ms(ids.nth_of(job, one)) == NOW_MS
    assert (ids.nth_of(job, one) == ids.nth_of(job, other)) == (one == other)
    assert ids.nth_of(job, one) != job


def test_the_nth_jobs_of_two_jobs_are_others() -> None:
    one = minter([NOW_MS] * 2)
    first, second = JobId(one.mint()), JobId(one.mint())
    made = [ids.nth_of(job, n) for job in (first, second) for n in range(1, 1000)]
    assert len(set(made)) == len(made)


def test_the_id_of_the_nth_job_never_changes() -> None:
    """A release that made others would store jobs twice whose parents run again across it."""
    job = JobId(bytes.fromhex("01939f3e7a007000800000000000000a"))
    assert ids.text(ids.nth_of(job, 1)) == "01939f3e-7a00-7981-a1b0-4980aa045871"
