"""Seeded bugs of graphs. Each is what somebody could write by mistake."""

from tests.chaos.mutants import scenes_graphs as scenes
from tests.chaos.mutants.patches import Patch
from tests.chaos.mutants.trial import Mutant

_SQL, _WALK, _DECIDE = "store/sql/graphs.sql", "store/walk.py", "domain/workflow.py"
_UNLOCKED = "I3 a job is unlocked when its condition holds"
_BLOCKED = "I3b nothing is blocked"

GRAPHS = [
    Mutant(
        "any_succeeded wants two",
        scenes.woven,
        "I3 a job is skipped when its condition can't hold",
        [
            Patch(
                _DECIDE,
                "return counts.succeeded > 0, all_over",
                "return counts.succeeded > 1, all_over",
            )
        ],
    ),
    Mutant(
        "a job begins when the first of its parents has succeeded",
        scenes.woven,
        _UNLOCKED,
        [Patch(_DECIDE, "return counts.succeeded == parents,", "return counts.succeeded > 0,")],
    ),
    Mutant(
        "a cancelled parent is a dead one",
        scenes.stopped,
        "I3 a job is skipped when its condition can't hold",
        [
            Patch(
                _DECIDE,
                "return counts.dead > 0, all_over",
                "return counts.dead + counts.cancelled > 0, counts.dead > 9",
            ),
            Patch(_DECIDE, "return all_over, False", "return all_over, counts.cancelled > 0"),
        ],
    ),
    Mutant(
        "unlocking forgets a child",
        scenes.woven,
        _BLOCKED,
        [
            Patch(
                _WALK,
                'await self._tx.rows("unlock_blocked", run)',
                'await self._tx.rows("unlock_blocked", run[:1])',
            )
        ],
    ),
    Mutant(
        "an end is counted twice",
        scenes.woven,
        _UNLOCKED,
        [
            Patch(
                _SQL,
                "SET succeeded = b.succeeded + v.succeeded, dead = b.dead + v.dead,\n        c",
                "SET succeeded = b.succeeded + 2 * v.succeeded, dead = b.dead + v.dead,\n        c",
            ),
        ],
    ),
    Mutant(
        "a skipped job doesn't tell its children",
        scenes.woven,
        _BLOCKED,
        [
            Patch(
                _WALK,
                "        await self.end_blocked(skip, State.SKIPPED, None)\n",
                """        if skip:
            await self._tx.rows("end_blocked", skip, State.SKIPPED, None, False)
""",
            )
        ],
    ),
    Mutant(
        "what is left of a spread is never told",
        scenes.fanned_out,
        _BLOCKED,
        [Patch(_WALK, "        if left:\n", "        if not left:\n")],
    ),
    Mutant(
        "a further step begins with the first child again",
        scenes.fanned_out,
        "I3",
        [
            Patch(
                _WALK,
                "graph, State(state), JobId(after), True)",
                "graph, State(state), stored=True)",
            )
        ],
    ),
    Mutant(
        "an unlocked job doesn't wait for its own time",
        scenes.woven,
        "I9 nothing starts before its time",
        [
            Patch(
                _SQL,
                "kind, priority, greatest(run_at, t.now), attempt",
                "kind, priority, t.now, attempt",
            )
        ],
    ),
    Mutant(
        "a stop spares nobody",
        scenes.stopped,
        "I3 a stop spares what has begun",
        [
            Patch(_WALK, "_SPARES = [str(one) for one in STOP_SPARES]", '_SPARES = ["nobody"]'),
            Patch(_WALK, "(halt is Halt.STOP and run_if not in STOP_SPARES)", "halt is Halt.STOP"),
        ],
    ),
    Mutant(
        "a stop ends what waits for a retry",
        scenes.stopped,
        "I3 a stop spares what has begun",
        [Patch(_SQL, "d.failures = 0 AND d.losses = 0 AND d.crashes = 0", "true")],
    ),
    Mutant(
        "nothing stops",
        scenes.stopped,
        "I3 a death halts a workflow that stops",
        [Patch(_WALK, "if one.on_failure is OnFailure.STOP and", "if not one.on_failure and")],
    ),
    Mutant(
        "a stop leaves what is in line",
        scenes.stopped,
        "I3 nothing begins in a workflow that was halted",
        [
            Patch(
                _WALK,
                "await self.end_due([JobId(id_) for id_, is_blocked in found if not is_blocked],",
                "await self.end_due([JobId(id_) for id_, is_blocked in found if is_blocked],",
            )
        ],
    ),
    Mutant(
        "a cancelled workflow lets go on what runs",
        scenes.cancelled,
        "I3 a cancel asks what runs to stop",
        [
            Patch(
                _SQL,
                "WHERE graph_id = $1 AND cancel_requested_at IS NULL",
                "WHERE graph_id = $1 AND false",
            )
        ],
    ),
    Mutant(
        "a workflow never ends",
        scenes.woven,
        "I3b a workflow is over when its jobs are",
        [
            Patch(
                _DECIDE, "self.counts.ended == self.total and", "self.counts.ended > self.total and"
            )
        ],
    ),
    Mutant(
        "a workflow ends before its last job",
        scenes.woven,
        "I3 nothing of a workflow moves after its end",
        [
            Patch(
                _DECIDE,
                "self.counts.ended == self.total and",
                "self.counts.ended >= self.total - 1 and",
            )
        ],
    ),
    Mutant(
        "a workflow that a retry opens again keeps its counts",
        scenes.retried,
        "I3 a workflow counts its jobs",
        [
            Patch(
                "store/lives.py",
                "counts = counts.plus(one.was, -1)\n    running",
                "pass\n    running",
            )
        ],
    ),
    Mutant(
        "a job that is a workflow isn't settled with it",
        scenes.woven,
        "I3 a job ends with the workflow that it holds",
        [
            Patch(
                _WALK,
                "            if ended.holder is not None:\n",
                "            if ended.holder == b'':\n",
            )
        ],
    ),
    Mutant(
        "a retry counts what runs again as over",
        scenes.retried,
        "I3",
        [
            Patch(
                "domain/retry_plan.py",
                "state = None if parent in again else by_id[parent].state",
                "state = by_id[parent].state",
            )
        ],
    ),
    Mutant(
        "a retry doesn't take back what children were told",
        scenes.retried,
        _UNLOCKED,
        [Patch("store/lives.py", "    await _untell(transaction, again)\n", "")],
    ),
    Mutant(
        "a job that runs isn't told that it has a child",
        scenes.joined,
        _BLOCKED,
        [
            Patch(
                _SQL,
                "UPDATE job_running SET graph_id = coalesce(graph_id, $2)",
                "UPDATE job_running SET graph_id = CASE WHEN $2::uuid IS NULL THEN graph_id END",
            )
        ],
    ),
    Mutant(
        "parents that are over when a child comes aren't counted",
        scenes.joined,
        _BLOCKED,
        [
            Patch(
                "store/graph_submissions.py",
                "if parent in self.states and is_told(",
                "if parent not in self.states and is_told(",
            )
        ],
    ),
]
