"""Named chaos points: places where a replica dies, fails or hangs when it is asked to.

In: `PENSTOCK_CHAOS`, as `after_pop:0.01:exit,after_start:#3:raise,after_settle:0.5:sleep=2;seed=7`:
a point's name, how likely each pass strikes (or #n: the n-th pass alone), and what happens: `exit`
(as `kill -9`), `raise` (what an unreachable service raises there; where the point stands behind a
commit, that nobody knows what came of it), `sleep=seconds`, `cut` (the statement is sent and the
connection aborted before its answer is read). Out: nothing, unless it was asked for. Always holds:
never in the environment `production`; what isn't known is refused with a list of what is.

The only state of a module in this package: a point is passed from every room, and wiring it would
cost each of them a parameter that does nothing.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from penstock.domain.errors import (
    QueueUnavailable,
    StoreUnavailable,
    Unavailable,
    WrongSetting,
)

VARIABLE = "PENSTOCK_CHAOS"
_SLEEP_MAX_S = 600.0
T = TypeVar("T")

_HOW = "write name:probability:action, the probability as 0.01 or #3 for the third pass alone"


@dataclass(frozen=True, slots=True)
class Point:
    """Where it stands. `raises`: which service may fail there, if one may; `unknown`: it failed
    behind a commit; `cuts`: a connection is in hand."""

    says: str
    raises: type[StoreUnavailable] | type[QueueUnavailable] | None = None
    unknown: bool = False
    cuts: bool = False

    def actions(self) -> list[str]:
        """What it can be asked for."""
        return [
            *("exit", "sleep"),
            *(["raise"] if self.raises else []),
            *(["cut"] if self.cuts else []),
        ]


def _before(says: str) -> Point:
    return Point(says, StoreUnavailable)


def _answer(says: str) -> Point:
    """Between a commit and its answer to us."""
    return Point(says, StoreUnavailable, unknown=True, cuts=True)


# In the order of a job's walk. Each is passed at exactly one place (tests/test_chaos.py).
POINTS: Mapping[str, Point] = {
    "before_commit": _before("Submissions without keys have gathered; nothing was sent."),
    "before_commit_keyed": _before("Submissions with keys are written, and not committed."),
    "before_commit_large": _before("A large submission is written, and not committed."),
    "after_commit": _answer("Between a submission's COMMIT and its answer to us."),
    "after_commit_keyed": _answer("The same, with an Idempotency-Key or a unique key."),
    "after_commit_large": _answer("The same, for a submission that has a transaction of its own."),
    "before_commit_graph": _before("What joins a graph is written, and not committed."),
    "after_commit_graph": _answer("The same behind its COMMIT, before its answer to us."),
    "before_enqueue_graph": Point("A graph's jobs are stored; none is in line."),
    "before_enqueue": Point("Submissions are stored, callers are told; nothing is in line."),
    "between_enqueues": Point("A page of jobs is in line, the next is not.", QueueUnavailable),
    "after_promote": Point(
        "Between what promote.lua did and its answer to us.", QueueUnavailable, unknown=True
    ),
    "after_pop": Point(
        "Ids are popped and leased; their start was not sent.", QueueUnavailable, unknown=True
    ),
    "after_start": _answer("Between a start's COMMIT and its answer to us."),
    "before_handler": Point("Attempts have been started, no handler was called."),
    "before_children": _before(
        "A handler has succeeded; the jobs that it submitted aren't stored."
    ),
    "after_children": Point(
        "The jobs that a handler submitted are stored; it isn't settled.",
        StoreUnavailable,
        unknown=True,
    ),
    "before_settle": _before("Handlers have ended; their settlement was not sent."),
    "after_settle": _answer("Between a settlement's COMMIT and its answer to us."),
    "before_settle_graph": _before("A graph's ends and what follows are written, not committed."),
    "after_settle_graph": _answer("The same behind its COMMIT, before its answer to us."),
    "before_advance": _before("A further step on a graph is written, and not committed."),
    "after_advance": _answer("The same behind its COMMIT, before its answer to us."),
    "between_steps": Point("A further step on a graph is done; nobody was told."),
    "before_nest": _before("A nested workflow is written and has its row; not committed."),
    "after_nest": _answer("The same behind its COMMIT, before its answer to us."),
    "before_ack": Point("Attempts are settled; leases stand, retries are not in line."),
    "after_cancel": _answer("Between the COMMIT that ends a waiting job and its answer to us."),
    "after_cancel_request": _answer("A running job's cancel is stored; its worker was not told."),
    "after_cancel_graph": _answer("A waiting job of a graph is cancelled, with what follows."),
    "after_cancel_workflow": _answer("A workflow's cancel is stored, with its first step."),
    "after_retry_workflow": _answer("A workflow runs again; its jobs are not in line."),
    "before_change": _before("A small change, as a pause, is written with its entry in the log."),
    "after_change": _answer("The same behind its COMMIT, before its answer to us."),
    "after_expire_graph": _answer("Expired jobs of a graph have ended, with what follows."),
    "after_retry": _answer("Between the COMMIT of a job's new life and its answer to us."),
    "after_replay_letters": _answer("A page of dead jobs has a new life; none is in line."),
    "after_discard": _answer("Between the COMMIT of a discard and its answer to us."),
    "after_expire": _answer("Expired jobs have ended; their ids stand on the shelves."),
    "after_prune": _answer("Between the COMMIT that prunes old jobs and its answer to us."),
    "after_prune_workflows": _answer("Old workflows are taken out; all their jobs are there."),
    "after_condemn": _before("A worker is condemned; none of its attempts is settled as lost."),
    "before_return": _before("Leases are over; their ids are not back in line."),
    "after_claim_effects": _answer("Effects are leased to us; none is sent."),
    "after_join_groups": _answer("Effects are in their groups; their leases are over."),
    "before_fix_message": _before("Who is of a message is written, and not committed."),
    "after_fix_message": _answer("It is settled who is of a message; it isn't sent."),
    "after_deliver": _before("Effects are delivered; nobody has written it down."),
    "after_finish_effects": _answer("Between the COMMIT that ends effects and its answer to us."),
    "after_send_again": _answer("An effect that was over is to be delivered again."),
    "before_adopt": _before("Attempts stand under our name that we don't know, not taken in."),
    "between_heads": _before("The reconciler has looked at one line, not at the next."),
    "between_pages": Point("A page of a rebuild stands, the next does not.", QueueUnavailable),
    "before_hand_back": _before("A drain has stopped the late attempts; none is handed back."),
    "before_leave": _before("A drain has handed back all; its worker stands in the list."),
    "between_beats": _before("The keeper is about to send a sign of life."),
}


@dataclass(slots=True)
class _Order:
    """What one point was asked for. `nth` 0: each pass strikes with `probability`."""

    name: str
    action: str
    chance: random.Random
    probability: float = 0.0
    nth: int = 0
    sleep_s: float = 0.0
    passes: int = field(default=0, init=False)

    def strikes(self) -> bool:
        self.passes += 1
        if self.nth:
            return self.passes == self.nth
        return self.chance.random() < self.probability


_orders: dict[str, _Order] = {}


async def point(name: str) -> None:
    """Passes a point: does what was asked for there, which is mostly nothing."""
    if _orders and (order := _struck(name)):
        await _obey(order)


async def answer(name: str, send: Callable[[], Awaitable[T]], cut: Callable[[], Awaitable[T]]) -> T:
    """Passes a point between a commit and its answer: the answer of `send`, which commits, unless
    something else was asked for. `cut` sends the same and loses the connection meanwhile."""
    order = _struck(name) if _orders else None
    if order is None:
        return await send()
    if order.action == "cut":
        return await cut()
    told = await send()
    await _obey(order)
    return told


def arm(text: str | None, environment: str) -> None:
    """Takes in what `PENSTOCK_CHAOS` says; None or nothing disarms. Raises WrongSetting."""
    _orders.clear()
    if not text:
        return
    if environment == "production":
        raise WrongSetting(
            f"{VARIABLE} is set, but PENSTOCK_ENV is production: chaos is for test "
            "environments; unset one of them"
        )
    _orders.update(_parsed(text))


def armed() -> list[str]:
    """The points that may strike, for a warning at the start."""
    return list(_orders)


def _parsed(text: str) -> dict[str, _Order]:
    entries, _, option = text.partition(";")
    seed = _seed(option)
    orders: dict[str, _Order] = {}
    for entry in entries.split(","):
        order = _order(entry.strip(), seed)
        if order.name in orders:
            raise _refusal(f"{order.name} is there twice")
        orders[order.name] = order
    return orders


def _seed(option: str) -> str | None:
    if not option:
        return None
    word, _, value = option.strip().partition("=")
    if word != "seed" or not value:
        raise _refusal(f"{option!r}: only seed=number may follow the ;")
    return value


def _order(entry: str, seed: str | None) -> _Order:
    parts = entry.split(":")
    if len(parts) != 3:
        raise _refusal(f"{entry!r}: {_HOW}")
    name, often, action = parts
    if name not in POINTS:
        raise _refusal(f"{name!r} is no point")
    # Each its own draws: else one seed would give others when another point is passed in between.
    chance = random.Random(None if seed is None else f"{seed}/{name}")
    word, _, seconds = action.partition("=")
    if word not in POINTS[name].actions() or (word != "sleep" and seconds):
        known = ", ".join(POINTS[name].actions()).replace("sleep", "sleep=seconds")
        raise _refusal(f"{action!r} can't be done at {name}: there are {known}")
    order = _Order(name, word, chance)
    if word == "sleep":
        order.sleep_s = _number(seconds, _SLEEP_MAX_S, entry)
    if often.startswith("#") and often[1:].isdecimal() and int(often[1:]) > 0:
        order.nth = int(often[1:])
    else:
        order.probability = _number(often, 1.0, entry)
    return order


def _number(text: str, most: float, entry: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number <= most:
        raise _refusal(f"{entry!r}: {text!r} is not above 0 and at most {most:g}; {_HOW}")
    return number


def _refusal(why: str) -> WrongSetting:
    return WrongSetting(f"{VARIABLE}: {why}; the points are {', '.join(POINTS)}")


def _struck(name: str) -> _Order | None:
    order = _orders.get(name)
    if order is None or not order.strikes():
        return None
    sys.stderr.write(f"penstock: chaos point {name}: {order.action}\n")
    sys.stderr.flush()
    return order


async def _obey(order: _Order) -> None:
    match order.action:
        case "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            await asyncio.sleep(order.sleep_s)
        case _:
            raise _failure(order.name)


def _failure(name: str) -> Unavailable:
    standing = POINTS[name]
    assert standing.raises is not None, name  # refused when it was asked for
    return standing.raises(f"as asked at chaos point {name}", unknown=standing.unknown)
