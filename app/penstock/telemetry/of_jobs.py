"""What we count of jobs, workflows, and what mends them."""

from collections.abc import Iterable

from penstock.telemetry.families import Maker

SOURCES = ("api", "batch", "workflow", "handler", "retry", "replay")
OUTCOMES = ("succeeded", "failed", "timed_out", "lost", "crashed", "released", "cancelled")
ENDS = ("succeeded", "dead", "cancelled", "skipped")
WORKFLOW_ENDS = ("succeeded", "failed", "cancelled")
KEYED = ("stored", "replayed", "refused", "looked-again")
RULES_MENDED = ("leaked_key",)

_JOB_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class OfJobs:
    def __init__(self, make: Maker) -> None:
        self._count_jobs(make)
        self._time_jobs(make)
        self._count_workflows(make)
        self._count_mending(make)
        self._count_audits(make)

    def _count_jobs(self, make: Maker) -> None:
        queues, kinds = make.queues, make.kinds
        self.jobs_submitted = make.counts(
            "penstock_jobs_submitted",
            "Lives of jobs begun: accepted (api, batch, workflow, handler) or given anew to a job "
            "that was over (retry, replay).",
            queue=queues,
            source=SOURCES,
        )
        self.attempts = make.counts(
            "penstock_attempts", "Attempts ended.", kind=kinds, outcome=OUTCOMES
        )
        self.retries = make.counts(
            "penstock_retries",
            "Attempts that failed and are followed by another.",
            pairs=make.pairs,
            queue=None,
            kind=None,
        )
        self.jobs_ended = make.counts(
            "penstock_jobs_ended", "Jobs ended.", queue=queues, state=ENDS
        )
        self.jobs_expired = make.counts(
            "penstock_jobs_expired", "Jobs not started in time.", queue=queues
        )
        self.submissions_keyed = make.counts(
            "penstock_submissions_keyed",
            "Submissions with an Idempotency-Key or a unique key, by what came of them.",
            outcome=KEYED,
        )
        self.retries_delayed = make.counts(
            "penstock_retries_delayed",
            "Retries moved out because too many of their kind were due.",
            kind=kinds,
        )

    def foresee_kinds(self, kinds: Iterable[str]) -> None:
        """These are there at 0 from now on."""
        for kind in kinds:
            self.attempts(kind, OUTCOMES[0])

    def foresee_queues(self, queues: Iterable[str]) -> None:
        """So are these: else `increase()` misses the first that a replica counts of a queue."""
        for queue in queues:
            self.jobs_submitted(queue, SOURCES[0])
            self.jobs_ended(queue, ENDS[0])
            self.jobs_expired(queue)

    def _time_jobs(self, make: Maker) -> None:
        self.queue_wait = make.tally(
            "penstock_queue_wait_seconds", "From due to started.", _JOB_S, queue=make.queues
        )
        self.run_duration = make.tally(
            "penstock_run_duration_seconds",
            "From the start of an attempt to its handler's end, of attempts that ended here.",
            _JOB_S,
            pairs=make.pairs,
            queue=None,
            kind=None,
            outcome=None,
        )
        self.end_to_end = make.tally(
            "penstock_end_to_end_seconds",
            "From due to over, of jobs that ran; a job that was tried again counts from the first "
            "start of its life.",
            _JOB_S,
            queue=make.queues,
        )
        self.schedule_lag = make.tally(
            "penstock_schedule_lag_seconds",
            "How late the first of those that were promoted together got in line.",
            _JOB_S,
        )

    def _count_workflows(self, make: Maker) -> None:
        self.workflows_ended = make.counts(
            "penstock_workflows_ended", "Workflows ended.", state=WORKFLOW_ENDS
        )
        self.workflows_pruned = make.count(
            "penstock_workflows_pruned", "Ended workflows deleted by age."
        )
        self.jobs_unlocked = make.count(
            "penstock_jobs_unlocked", "Jobs whose parents let them run."
        )

    def _count_mending(self, make: Maker) -> None:
        self.stale_settlements = make.count(
            "penstock_stale_settlements", "Outcomes of attempts that were over."
        )
        self.stale_claims = make.count(
            "penstock_stale_claims", "Claimed ids that were not due any more."
        )
        self.unsettleable = make.count(
            "penstock_unsettleable", "Attempts that PostgreSQL lets nobody settle."
        )
        self.unsettled = make.gauge(
            "penstock_unsettled", "Attempts that ended here and are not settled yet."
        )
        self.workers_condemned = make.count(
            "penstock_workers_condemned", "Workers that fell silent and were condemned."
        )
        self.reaped = make.count("penstock_reaped", "Attempts settled as lost with their worker.")
        self.adopted = make.count(
            "penstock_adopted", "Attempts of ours found in Postgres but not here."
        )
        self.reconciled = make.count(
            "penstock_reconciled", "Due jobs put back on a shelf of Redis."
        )
        self.leases_renewed = make.count("penstock_leases_renewed", "Leases in Redis renewed.")
        self.leases_expired = make.count(
            "penstock_leases_expired", "Leases in Redis found to be over; their ids are looked at."
        )
        self.jobs_pruned = make.counts(
            "penstock_jobs_pruned", "Ended jobs deleted by age.", state=ENDS
        )
        self.answers_pruned = make.count(
            "penstock_answers_pruned", "Stored answers of Idempotency-Keys deleted."
        )

    def _count_audits(self, make: Maker) -> None:
        self.audit_violations = make.gauges(
            "penstock_audit_violations",
            "What the last audit found wrong; 0 where another replica audits.",
            rule=None,
        )
        self.audit_mended = make.counts(
            "penstock_audit_mended", "What an audit set right.", rule=RULES_MENDED
        )
        self.audit_age = make.gauge(
            "penstock_audit_age_seconds",
            "Since this replica's last whole audit; the least of all replicas counts.",
        )
