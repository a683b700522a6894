"""Scripts of graphs: which jobs there are, how each attempt of them ends, what callers do.

Hypothesis draws what a script is about (its size, shape, rule, calls) and a number from which the
details are drawn: so scripts of 200 jobs are small to it, and a script is repeated by those few
values, which its name shows.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from penstock.domain.graph import may_be_skipped
from tests.support.workflow_reference import CONDITIONS, DEAD, Graph, Node

SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100, 200)
SHAPES = ("any", "near", "fan", "chain", "diamonds")
CALLS = (
    "none",
    "none",
    "none",
    "add",
    "cancel a job",
    "cancel",
    "add and cancel a job",
    *("retry",) * 3,
)
_OFTEN = ("all_succeeded",) * 6 + ("all_finished", "none_failed") * 2  # else most are skipped
_ALWAYS = 1_000_000  # failures
_LOOSE_MAX = 12
_DEEP_MAX = 40  # one after the other, and each may wait for what is lost
NESTED = 0.05  # how many jobs are workflows themselves


@dataclass(frozen=True, slots=True)
class Part:
    """A job. `inner`: those of the workflow that it holds; `mended`: a retry finds it well."""

    node: Node
    seconds: float = 0.0
    failures: int = 0
    mended: bool = False
    inner: tuple["Part", ...] = ()
    skippable: bool = False

    @property
    def name(self) -> str:
        return self.node.name

    def body(self, mended: str) -> dict[str, Any]:
        """As it is submitted. `mended`: the file that tells it that it is."""
        edges = {"depends_on": list(self.node.parents), "run_if": self.node.run_if}
        head = {"name": self.name, **(edges if self.node.parents else {})}
        if self.inner:
            jobs = [one.body(mended) for one in self.inner]
            return {**head, "kind": "workflow", "payload": {"name": self.name, "jobs": jobs}}
        payload = {
            "seconds": self.seconds,
            "failures": _ALWAYS if self.node.dies else self.failures,
            "mended": mended if self.mended else None,
        }
        return {
            **head,
            "kind": "scripted",
            "queue": f"q{len(self.name) % 3}",
            "payload": payload,
            "max_attempts": 1 + self.failures,
            "backoff": {"kind": "fixed", "base_s": 0.05, "jitter": "none"},
        }


@dataclass(frozen=True, slots=True)
class Script:
    """`name` says what it was drawn from. `added` join it after `after_s`, when what is in
    `cancelled` is cancelled too; or it is retried while it runs, by which nobody ends in another
    way. `again`: it is retried when it is over, from these names or (none) all of it, as often as
    there are entries."""

    name: str
    parts: Sequence[Part]
    stop: bool = False
    is_loose: bool = False
    after_s: float = 0.0
    added: Sequence[Part] = ()
    cancelled: Sequence[str] = ()
    is_cancelled: bool = False
    is_retried: bool = False
    again: Sequence[Sequence[str]] = ()

    @property
    def nodes(self) -> list[Node]:
        return [part.node for part in (*self.parts, *self.added)]

    @property
    def first(self) -> Graph:
        """What may become of it before it is retried."""
        may_be = [node.name for node in self.nodes] if self.is_cancelled else self.cancelled
        return Graph(self.nodes, self.stop, may_be)

    def retried(self, ends: Mapping[str, str], names: Sequence[str]) -> Graph:
        """What may become of it by a retry, when it ended so."""
        again = self.first.again(ends, names or None)
        well = {part.name for part in (*self.parts, *self.added) if part.mended}
        nodes = [replace(one, dies=one.dies and one.name not in well) for one in self.nodes]
        return Graph(nodes, self.stop, kept={n: e for n, e in ends.items() if n not in again})


def drawn(count: int, at: int | None = None) -> list[Script]:
    """So many scripts. `at`: drawn by this seed; None: the same each time."""
    found: list[Script] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=at is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(scripts())
    def draw(one: Script) -> None:
        found.append(one)

    (draw if at is None else seed(at)(draw))()
    return found


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    return script(
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from(SIZES)),
        draw(st.sampled_from(SHAPES)),
        draw(st.sampled_from(["continue", "continue", "stop", "loose"])),
        draw(st.sampled_from(CALLS)),
        draw(st.integers(0, 2)),
    )


def script(number: int, size: int, shape: str, rule: str, calls: str, retries: int) -> Script:
    """The one that these stand for."""
    chance = random.Random(number)
    is_loose = rule == "loose"
    longest = _LOOSE_MAX if is_loose else _DEEP_MAX if shape in ("chain", "diamonds") else size
    size = min(size, longest)
    may_nest = "cancel" not in calls and not is_loose
    parts = _Drawing(chance, shape, may_nest).parts(size)
    one = Script(
        f"script({number}, {size}, {shape!r}, {rule!r}, {calls!r}, {retries})",
        parts,
        stop=rule == "stop",
        is_loose=is_loose,
        after_s=chance.choice([0.0, 0.05, 0.2, 0.5, 1.0]),
    )
    names = [part.name for part in parts]
    if "add" in calls and not is_loose:
        more = _Drawing(chance, "any", may_nest, prefix="added-").parts(
            chance.randint(1, 5), among=parts
        )
        one = replace(one, added=more)
    if "cancel a job" in calls:
        one = replace(one, cancelled=chance.sample(names, min(len(names), chance.randint(1, 3))))
    if is_loose:
        return one
    again = [chance.sample(names, min(len(names), 2)) if n % 2 else [] for n in range(retries)]
    return replace(one, is_cancelled=calls == "cancel", is_retried=calls == "retry", again=again)


@dataclass(slots=True)
class _Drawing:
    chance: random.Random
    shape: str
    may_nest: bool = False
    prefix: str = "n"
    _found: list[Part] = field(default_factory=list)

    def parts(self, count: int, among: Sequence[Part] = ()) -> list[Part]:
        """So many, whose parents are some of them that come before, or of `among`."""
        self._found = list(among)
        for number in range(count):
            self._found.append(self._part(f"{self.prefix}{number}"))
        return self._found[len(among) :]

    def _part(self, name: str) -> Part:
        chance = self.chance
        condition = chance.choice([*CONDITIONS, *_OFTEN])
        found = self._parents()
        parents = tuple(sorted(part.name for part in found))
        if condition == "all_skipped" and not all(part.skippable for part in found):
            condition = "none_skipped"  # the door refuses what can never hold
        inner: tuple[Part, ...] = ()
        dies = chance.random() < 0.1
        if self.may_nest and chance.random() < NESTED:
            inner = tuple(_Drawing(chance, "any").parts(chance.randint(1, 4)))
            inner = tuple(replace(one, mended=False) for one in inner)
            ends = Graph([one.node for one in inner]).possible().values()
            dies = any(DEAD in states for states in ends)
        can = [part.skippable for part in found]
        return Part(
            Node(name, parents, condition, dies),
            seconds=chance.choice([0, 0, 0, 0.02, 0.1, 0.4]),
            failures=chance.choice([0, 0, 0, 0, 1, 2]),
            mended=not inner and chance.random() < 0.6,
            inner=inner,
            skippable=may_be_skipped(condition, can),
        )

    def _parents(self) -> Sequence[Part]:
        """By the shape."""
        found, chance = self._found, self.chance
        if not found:
            return ()
        match self.shape:
            case "chain":
                return found[-1:]
            case "fan":  # one, many, one, many
                place = len(found) % 12
                return found[-11:] if place == 11 else found[len(found) - place :][:1]
            case "diamonds":
                place = len(found) % 4
                return {0: found[-1:], 1: found[-1:], 2: found[-2:-1], 3: found[-2:]}[place]
            case "near":
                few = found[-8:]
            case _:
                few = found
        return chance.sample(few, min(len(few), chance.choice([0, 1, 1, 2, 2, 3, 5])))
