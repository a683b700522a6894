"""What a run came to: the figures, and the gates that follow from the faults that were struck."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.nemesis import FAULTS, NemesisLog
from tests.chaos.sampler import Trend
from tests.support import checker
from tests.support.checker import Drained, Violations
from tests.support.execution_log import Event
from tests.support.figures import share
from tests.support.load import Answers
from tests.support.mix import DOOMED
from tests.support.scene import Scene, largest_gap

ANY = 1_000_000_000
_SHOWN = 5
_RSS_MAX_MIB = 300
_LATE_END_S = 5.0
_SETTLED_TWICE = ("I2", "I4 an attempt begins once", "I6 nothing comes after a success")
_INNOCENTS = """
SELECT e.job_id::text FROM job_ended e JOIN jobs j USING (job_id)
WHERE e.state = 'dead' AND NOT ($1 = ANY(coalesce(j.tags, '{}')))
"""


@dataclass(frozen=True, slots=True)
class Promise:
    """What the faults that were chosen allow."""

    loses: bool  # attempts may be lost with their worker, and are made again
    overlaps: bool  # and the lost ones may go on beside the new ones

    @classmethod
    def of(cls, faults: Collection[str]) -> "Promise":
        kinds = [FAULTS[name] for name in faults]
        return cls(any(kind.loses for kind in kinds), any(kind.overlaps for kind in kinds))


@dataclass(frozen=True, slots=True)
class Rescue:
    """Of one attempt that was lost by a kill: seconds from the kill until it was settled as lost,
    and until the job's next attempt began."""

    reaped_s: float
    again_s: float


@dataclass(slots=True)
class Verdict:
    """`complaints`: rules that don't hold, replicas' errors, whatever else went wrong."""

    seed: int
    struck: dict[str, int]
    jobs: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    recovered: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    duplicated: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    lost: int = 0
    settled_twice: int = 0
    overlaps: int = 0
    innocents: list[str] = field(default_factory=list)
    rescues: list[Rescue] = field(default_factory=list)
    answers: dict[str, dict[str, int]] = field(default_factory=dict)
    gap_s: float = 0.0
    drained_in_s: float = 0.0
    drains_s: list[float] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)
    trends: dict[str, dict[str, Trend]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def gates(self, promise: Promise) -> dict[str, bool]:
        """Each gate and whether it holds."""
        gates = {
            "lost 0": self.lost == 0,
            "settled twice 0": self.settled_twice == 0,
            "innocents dead 0": not self.innocents,
            "duplicated without a loss 0": not self.duplicated,
            "no other complaint": not self.complaints,
            f"memory below {_RSS_MAX_MIB} MiB": self._rss_mib() < _RSS_MAX_MIB,
        }
        if not promise.overlaps:
            gates["overlaps 0"] = self.overlaps == 0
        if not promise.loses:
            gates["attempts lost 0"] = self.outcomes.get("lost", 0) == 0
            gates["executed again 0"] = not self.repeated
        return gates

    def _rss_mib(self) -> float:
        """The largest of any replica."""
        return max((found["rss_mib"].largest for found in self.trends.values()), default=0.0)


async def judge(scene: Scene, log: NemesisLog, loaded: tuple[float, float]) -> Verdict:
    """After the drain. `loaded`: when the load began and ended, in seconds since 1970."""
    verdict = Verdict(log.seed, dict(sorted(log.struck.items())))
    async with scene.connected() as con:
        try:
            report = await checker.check(con, scene.evidence(overlaps_max=ANY))
        except Violations as error:
            _accuse(verdict, error)
        else:
            verdict.recovered, verdict.overlaps = report.recovered, report.overlaps
        verdict.jobs = await con.fetchval("SELECT count(*) FROM jobs")
        verdict.innocents = [row[0] for row in await con.fetch(_INNOCENTS, DOOMED)]
    attempts = await scene.attempts()
    verdict.outcomes = dict(Counter(one["outcome"] for one in attempts))
    verdict.duplicated, verdict.repeated = executed_twice(scene.log.read(), attempts)
    verdict.rescues = rescues(attempts, log.killed_at(await scene.workers()))
    verdict.requests = scene.load.log.counts()
    verdict.answers = _answers(scene)
    starts = [one.t for one in scene.log.starts() if loaded[0] <= one.t <= loaded[1]]
    verdict.gap_s = largest_gap(starts)
    verdict.drains_s = [one.exited_at - one.signalled_at for one in scene.drains]
    verdict.deaths = [death.status for death in scene.fleet.deaths]
    verdict.complaints += scene.fleet.complaints()
    return verdict


def executed_twice(
    events: Sequence[Event], attempts: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Jobs whose handler came to its end more than once although it hadn't failed: without an
    attempt that was lost, which nothing excuses, and with one."""
    outcomes = {(one["job"], one["attempt"]): one["outcome"] for one in attempts}
    ended: dict[str, list[str]] = defaultdict(list)
    for event in events:
        outcome = outcomes.get(event.key, "none")
        if event.ev == "end" and outcome not in ("failed", "cancelled"):
            ended[event.job].append(outcome)
    twice = {job: found for job, found in ended.items() if len(found) > 1}
    excused = [job for job, found in twice.items() if found.count("lost") >= len(found) - 1]
    return sorted(twice.keys() - set(excused)), sorted(excused)


def rescues(attempts: Sequence[Mapping[str, Any]], killed_at: Mapping[str, float]) -> list[Rescue]:
    """Of each attempt that a kill lost, and that was made again. `killed_at`: by worker."""
    began = {(one["job"], one["attempt"]): one["started_at"] for one in attempts}
    found = []
    for one in attempts:
        again = began.get((one["job"], one["attempt"] + 1))
        at = killed_at.get(one["worker"])
        if one["outcome"] == "lost" and again is not None and at is not None:
            found.append(Rescue(one["finished_at"] - at, again - at))
    return found


def late_drains(drains: Collection[Drained]) -> list[str]:
    """Those that failed, or took longer than their grace and what a shutdown needs besides. When
    the last job starts is for `test_shutdown.py`: a machine without spare time hears late."""
    return [
        f"SIGTERM to {one.pid}: status {one.status} after {one.exited_at - one.signalled_at:.1f} s"
        for one in drains
        if one.status != 0 or one.exited_at - one.signalled_at > one.grace_s + _LATE_END_S
    ]


def shown(verdict: Verdict, promise: Promise) -> str:
    """The table."""
    rows: list[tuple[str, object]] = [
        ("seed", verdict.seed),
        ("struck", _listed(verdict.struck)),
        ("jobs", verdict.jobs),
        ("submissions", _listed(verdict.requests)),
        ("recovered jobs", verdict.recovered),
        ("attempts", _listed(verdict.outcomes)),
        ("duplicated without a loss", len(verdict.duplicated)),
        ("executed again after a loss", len(verdict.repeated)),
        ("lost", verdict.lost),
        ("settled twice", verdict.settled_twice),
        ("overlaps", verdict.overlaps),
        ("innocents dead", len(verdict.innocents)),
        ("kill until reaped", _spread([one.reaped_s for one in verdict.rescues])),
        ("kill until begun again", _spread([one.again_s for one in verdict.rescues])),
        ("SIGTERM until exit", _spread(verdict.drains_s)),
        *((f"answers to {name}", _listed(found)) for name, found in verdict.answers.items()),
        ("largest dispatch gap", f"{verdict.gap_s:.2f} s"),
        ("drained in", f"{verdict.drained_in_s:.1f} s"),
        ("replicas that died by themselves", _listed(Counter(map(str, verdict.deaths)))),
    ]
    lines = [f"{name:<33} {value}" for name, value in rows]
    lines += _trends(verdict.trends)
    lines += [f"complaint: {text}" for text in verdict.complaints[: 4 * _SHOWN]]
    for name, ids in (("duplicated", verdict.duplicated), ("innocent", verdict.innocents)):
        lines += [f"{name}: {id_}" for id_ in ids[:_SHOWN]]
    gates = verdict.gates(promise)
    lines += [f"{'passed' if holds else 'FAILED'}: {gate}" for gate, holds in gates.items()]
    return "\n".join(lines)


def _accuse(verdict: Verdict, error: Violations) -> None:
    for rule, offenders in error.broken.items():
        if rule.startswith("I1 "):
            verdict.lost += len(offenders)
        elif rule.startswith(_SETTLED_TWICE):
            verdict.settled_twice += len(offenders)
        verdict.complaints.append(
            f"{rule}: {len(offenders)} offend, such as {', '.join(offenders[:_SHOWN])}"
        )


def _answers(scene: Scene) -> dict[str, dict[str, int]]:
    sorts: dict[str, Answers] = {
        "submissions": scene.load.submitted,
        "looks": scene.load.looked,
        "changes": scene.load.changed,
    }
    return {
        name: {str(status): n for status, n in sorted(answers.statuses().items())}
        for name, answers in sorts.items()
    }


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    p50, p99 = statistics.median(values), share(values, 0.99)
    return f"{len(values)}: p50 {p50:.1f} s, p99 {p99:.1f} s, max {max(values):.1f} s"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _trends(trends: Mapping[str, Mapping[str, Trend]]) -> list[str]:
    return [
        f"{f'{replica}, {name}':<33} {found.first:.1f} -> {found.last:.1f}"
        f" (max {found.largest:.1f}, {found.per_hour:+.1f}/h)"
        for replica, figures in trends.items()
        for name, found in figures.items()
    ]
