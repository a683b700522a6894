"""What is counted, and that a caller's names can't blow it up."""

import re
from typing import get_args

import pytest

from penstock.domain.attempt import Outcome
from penstock.domain.effect import Channel, Fate
from penstock.domain.job import TERMINAL, State
from penstock.domain.submission import Source
from penstock.domain.workflow import WorkflowState
from penstock.settings import Role
from penstock.telemetry import of_cluster, of_effects, of_jobs, of_replica
from penstock.telemetry.families import NAMES_MAX, OTHER
from penstock.telemetry.metrics import Metrics

EXPECTED = """
penstock_jobs_submitted penstock_attempts penstock_jobs_ended penstock_jobs_pruned
penstock_jobs_expired penstock_submissions_keyed penstock_answers_pruned
penstock_stale_settlements
penstock_stale_claims penstock_reaped penstock_adopted penstock_reconciled penstock_leaked_slots
penstock_slots penstock_children penstock_child_start_failures penstock_batch_rows
penstock_batch_seconds penstock_queue_wait_seconds
penstock_http_requests penstock_redis_breaker_open penstock_loop_failures penstock_loop_lag_seconds
penstock_connections_refused penstock_unsettleable penstock_refused penstock_retries_delayed
penstock_loop_stall_seconds penstock_audit_violations penstock_audit_mended
penstock_audit_age_seconds penstock_refusals_logged
penstock_config_reloads penstock_config_refused penstock_config_restart_needed
penstock_config_loaded_at_seconds penstock_tasks penstock_redis_faults penstock_clock_ahead_seconds
penstock_jwks_fetches penstock_jwks_keys penstock_jwks_age_seconds penstock_rate_limited
penstock_rate_limits_alone penstock_log_lines_dropped penstock_spans_dropped
penstock_delivery_seconds penstock_effects penstock_effects_oldest_age_seconds
penstock_effects_waiting penstock_effects_held
penstock_jobs_unlocked penstock_workflows_ended penstock_workflows_pruned
penstock_retries penstock_run_duration_seconds penstock_end_to_end_seconds
penstock_schedule_lag_seconds penstock_unsettled penstock_workers_condemned
penstock_leases_renewed penstock_leases_expired penstock_endpoints penstock_endpoints_disabled
penstock_outlet_away penstock_http_request_duration_seconds penstock_redis_connections
penstock_postgres_connections penstock_postgres_pool_size penstock_postgres_waiters
penstock_build_info penstock_ready penstock_role penstock_leader penstock_cluster_told
penstock_queue_depth penstock_queue_oldest_ready_age_seconds penstock_queue_paused penstock_workers
penstock_workers_slots
"""


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_our_metrics_are_these_and_each_has_a_help() -> None:
    found = {family.name: family.documentation for family in Metrics().registry.collect()}
    ours = {name: text for name, text in found.items() if name.startswith("penstock_")}
    assert ours.keys() == set(EXPECTED.split())
    assert all(text.endswith(".") for text in ours.values())


def test_each_server_starts_at_zero() -> None:
    Metrics().reaped.inc()
    assert value(Metrics(), "penstock_reaped_total") == 0


def test_a_family_is_called_with_its_labels() -> None:
    metrics = Metrics()
    metrics.attempts("echo", "succeeded").inc(3)
    metrics.attempts("echo", "succeeded").inc()
    counted = value(metrics, "penstock_attempts_total", kind="echo", outcome="succeeded")
    assert counted == 4
    assert metrics.attempts("echo", "failed") is metrics.attempts("echo", "failed")


def test_names_beyond_the_200th_are_counted_as_other() -> None:
    metrics = Metrics()
    for i in range(NAMES_MAX + 50):
        metrics.jobs_submitted(f"q{i}", "api").inc()
        metrics.jobs_ended(f"q{i}", "dead").inc()
    assert value(metrics, "penstock_jobs_submitted_total", queue="q199", source="api") == 1
    assert value(metrics, "penstock_jobs_submitted_total", queue="q200", source="api") is None
    assert value(metrics, "penstock_jobs_submitted_total", queue=OTHER, source="api") == 50
    assert value(metrics, "penstock_jobs_ended_total", queue=OTHER, state="dead") == 50


def test_queues_and_kinds_have_their_room_apart() -> None:
    metrics = Metrics()
    for i in range(NAMES_MAX):
        metrics.jobs_submitted(f"q{i}", "api").inc()
    metrics.attempts("echo", "failed").inc()
    assert value(metrics, "penstock_attempts_total", kind="echo", outcome="failed") == 1


def test_the_wrong_number_of_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="argument"):
        Metrics().attempts("echo")


def test_what_labels_may_be_is_what_the_domain_says() -> None:
    assert set(of_jobs.SOURCES) == set(Source)
    assert set(of_jobs.OUTCOMES) == set(Outcome)
    assert set(of_jobs.ENDS) == set(TERMINAL)
    assert set(of_jobs.WORKFLOW_ENDS) == set(WorkflowState) - {WorkflowState.RUNNING}
    assert set(of_effects.CHANNELS) == set(Channel)
    assert set(of_effects.FATES) == set(Fate)
    assert set(of_replica.ROLES) == set(get_args(Role))
    assert set(of_cluster.STATES) == (set(State) - set(TERMINAL)) | {State.DEAD}


def test_units_are_base_units_and_counters_say_so() -> None:
    families = [one for one in Metrics().registry.collect() if one.name.startswith("penstock_")]
    units = re.compile(r"_(ms|us|minutes|hours|days|kib|mib|kilobytes|percent)(_|$)")
    assert [one.name for one in families if units.search(one.name)] == []
    told = [one.name for one in families if one.type != "counter" and one.name.endswith("_total")]
    assert told == []
    histograms = {one.name for one in families if one.type == "histogram"}
    assert {name for name in histograms if not name.endswith("_seconds")} == {"penstock_batch_rows"}


def test_label_sets_that_are_known_are_there_at_0() -> None:
    metrics = Metrics()
    metrics.foresee_kinds(["echo"])
    assert value(metrics, "penstock_effects_total", channel="webhook", fate="never") == 0
    assert value(metrics, "penstock_workflows_ended_total", state="failed") == 0
    assert value(metrics, "penstock_attempts_total", kind="echo", outcome="lost") == 0
    metrics.jobs_ended("mail", "succeeded").inc()
    assert value(metrics, "penstock_jobs_ended_total", queue="mail", state="dead") == 0
    assert value(metrics, "penstock_batch_seconds_count", batch="settle") == 0


def test_the_exposition_is_the_text_format() -> None:
    metrics = Metrics()
    metrics.batch_rows("submit").observe(7)
    text, content_type = metrics.exposition()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b'penstock_batch_rows_bucket{batch="submit",le="10.0"} 1.0' in text
    assert b"process_resident_memory_bytes" in text
