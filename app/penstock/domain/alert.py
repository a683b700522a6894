"""When dead letters are an alarm: so many within a time, by queue, kind and type of error. Pure.

Time is that of the deaths, so that it makes no difference how late they are read. A rule that has
told rests for its own window. Always holds: a repetition of a letter counts once; what is kept in
mind is bounded, whatever comes.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

from penstock.domain.effect import Channel

EVENT = "penstock.alert.v1"

_SEEN_MAX = 100_000
_GROUPS_MAX = 10_000  # of all rules together; the longest silent one is forgotten
_SAMPLES_MAX = 5

By = Literal["queue", "kind", "error_type"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One death, as the topic tells of it. `id`: the same at each repetition."""

    id: str
    job: str
    queue: str
    kind: str
    error_type: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Tells `endpoint` when `count` letters that fit the globs came within `within_s`, each group
    of `by` apart. Without a channel the log alone is told."""

    name: str
    queue: str = "*"
    kind: str = "*"
    error_type: str = "*"
    by: tuple[By, ...] = ()
    count: int = 1
    within_s: float = 300.0
    channel: Channel | None = None
    endpoint: str = ""

    def covers(self, letter: DeadLetter) -> bool:
        return (
            fnmatchcase(letter.queue, self.queue)
            and fnmatchcase(letter.kind, self.kind)
            and fnmatchcase(letter.error_type, self.error_type)
        )


@dataclass(frozen=True, slots=True)
class Alert:
    """`group`: what its letters have in common, by the rule's `by`. `jobs`: the last of them."""

    rule: AlertRule
    group: dict[str, str]
    count: int
    first_at: datetime
    last_at: datetime
    last_id: str
    jobs: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    recent: deque[DeadLetter]
    quiet_until: datetime | None = None


@dataclass
class Watch:
    """Keeps in mind what the rules need."""

    rules: Sequence[AlertRule]
    _groups: "OrderedDict[tuple[str, ...], _Group]" = field(default_factory=OrderedDict)
    _seen: "OrderedDict[str, None]" = field(default_factory=OrderedDict)

    def take(self, letters: Iterable[DeadLetter]) -> Iterator[Alert]:
        """The alerts that these letters raise."""
        for letter in letters:
            if self._is_new(letter):
                for rule in self.rules:
                    if rule.covers(letter) and (alert := self._count(rule, letter)):
                        yield alert

    def _is_new(self, letter: DeadLetter) -> bool:
        if letter.id in self._seen:
            return False
        self._seen[letter.id] = None
        if len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)
        return True

    def _count(self, rule: AlertRule, letter: DeadLetter) -> Alert | None:
        named: dict[str, str] = {name: str(getattr(letter, name)) for name in rule.by}
        group = self._group(rule, (rule.name, *named.values()))
        window = timedelta(seconds=rule.within_s)
        group.recent.append(letter)
        while group.recent[0].at < letter.at - window:
            group.recent.popleft()
        if group.quiet_until is not None and letter.at < group.quiet_until:
            return None
        if len(group.recent) < rule.count:
            return None
        recent = list(group.recent)
        group.recent.clear()
        group.quiet_until = letter.at + window
        jobs = tuple(one.job for one in recent[-_SAMPLES_MAX:])
        times = [one.at for one in recent]
        return Alert(rule, named, len(recent), min(times), max(times), letter.id, jobs)

    def _group(self, rule: AlertRule, key: tuple[str, ...]) -> _Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(deque(maxlen=rule.count))
            if len(self._groups) > _GROUPS_MAX:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return group
