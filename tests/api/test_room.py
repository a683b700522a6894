"""Room for bodies and for answers is shared fairly."""

import pytest

from penstock.api.problems import Problem
from penstock.api.room import SMALL_MAX_BYTES, Room

KIB = 1024


def refused(room: Room, sub: str, size: int) -> bool:
    share = room.share(sub)
    try:
        share.take(size)
    except Problem:
        return True
    share.give_back()
    return False


def test_what_was_taken_is_counted_until_it_is_given_back() -> None:
    room = Room(1000 * KIB)
    share = room.share("ada")
    share.take(300 * KIB)
    share.take(200 * KIB)
    assert (share.taken, room.taken) == (500 * KIB, 500 * KIB)
    with pytest.raises(Problem, match="overloaded: too much of yours") as full:
        share.take(1)
    assert full.value.headers == {"Retry-After": "1"}
    share.give_back()
    share.give_back()
    assert room.taken == 0
    assert not refused(room, "ada", 500 * KIB)


def test_one_caller_leaves_half_to_the_others() -> None:
    room = Room(1000 * KIB)
    for _ in range(5):
        room.share("mallory").take(100 * KIB)
    assert refused(room, "mallory", 1)
    assert not refused(room, "ada", 300 * KIB)


def test_large_bodies_leave_an_eighth_to_small_ones() -> None:
    room = Room(1600 * KIB)
    for sub in ("a", "b"):
        room.share(sub).take(700 * KIB)
    assert refused(room, "c", SMALL_MAX_BYTES + 1)
    assert not refused(room, "c", SMALL_MAX_BYTES)
    growing = room.share("c")
    growing.take(SMALL_MAX_BYTES)
    with pytest.raises(Problem):
        growing.take(1)
    assert growing.taken == SMALL_MAX_BYTES


def test_what_is_refused_is_not_counted() -> None:
    room = Room(1000)
    assert refused(room, "ada", 501)
    assert room.taken == 0
    assert not refused(room, "ada", 500)


def test_an_answer_takes_what_is_foreseen_and_then_what_it_came_to() -> None:
    room = Room(2000 * KIB, "sent")
    share = room.share("ada")
    share.foresee(500 * KIB)
    share.foresee(300 * KIB)
    assert (share.taken, room.taken) == (500 * KIB, 500 * KIB)
    share.settle(200 * KIB)
    assert (share.taken, room.taken) == (200 * KIB, 200 * KIB)
    share.settle(900 * KIB)
    assert (share.taken, room.taken) == (900 * KIB, 900 * KIB)
    with pytest.raises(Problem, match="overloaded: too much of yours is being sent"):
        share.settle(1001 * KIB)
    assert room.taken == 900 * KIB
    share.settle(SMALL_MAX_BYTES)
    assert room.taken == 0


def test_a_small_answer_needs_no_room() -> None:
    room = Room(1000 * KIB, "sent")
    for sub in ("a", "b"):
        room.share(sub).foresee(500 * KIB)
    share = room.share("a")
    share.foresee(SMALL_MAX_BYTES)
    share.settle(SMALL_MAX_BYTES)
    assert share.taken == 0
    with pytest.raises(Problem):
        share.foresee(SMALL_MAX_BYTES + 1)


def test_an_answer_to_what_is_done_counts_though_there_is_no_room() -> None:
    room = Room(1000 * KIB, "sent")
    room.share("ada").foresee(500 * KIB)
    share = room.share("ada")
    share.settle(100 * KIB, is_done=True)
    assert room.taken == 600 * KIB
    share.give_back()
    assert room.taken == 500 * KIB
