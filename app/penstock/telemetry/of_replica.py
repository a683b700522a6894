"""What we measure of one replica: its slots, event loop, connections, batches, settings."""

from penstock.telemetry.families import Maker

BATCHES = ("submit", "start", "settle")
ROLES = ("api", "scheduler", "worker", "relay")
ELECTED = ("audit", "reconcile")
LANES = ("async", "threads")

_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class OfReplica:
    def __init__(self, make: Maker) -> None:
        self._measure_hands(make)
        self._measure_loop(make)
        self._measure_batches(make)
        self._measure_servers(make)
        self._measure_settings(make)
        self._say_who_we_are(make)

    def _measure_hands(self, make: Maker) -> None:
        self.slots = make.gauges(
            "penstock_slots",
            "Worker slots by lane (async: coroutines, threads: plain functions) and state: busy, "
            "free.",
            lane=LANES,
            state=("busy", "free"),
        )
        self.leaked_slots = make.gauge(
            "penstock_leaked_slots", "Slots held by handlers that ignore their end."
        )
        self.children = make.gauges(
            "penstock_children",
            "Jobs lost twice that run in a child process, or wait for one: busy, waiting.",
            state=("busy", "waiting"),
        )
        self.child_start_failures = make.count(
            "penstock_child_start_failures", "Child processes that did not come to their job."
        )

    def _measure_loop(self, make: Maker) -> None:
        self.tasks = make.gauge("penstock_tasks", "Tasks of the event loop.")
        self.loop_failures = make.counts(
            "penstock_loop_failures", "Failed steps of a loop.", loop=None
        )
        self.loop_lag = make.histogram(
            "penstock_loop_lag_seconds", "Lateness of the event loop.", _SHORT_S
        )
        self.loop_stall = make.histogram(
            "penstock_loop_stall_seconds",
            "How long the event loop stood still, each time that it did for more than a second.",
            (1, 2, 5, 10, 30, 60),
        )

    def _measure_batches(self, make: Maker) -> None:
        self.batch_rows = make.tally(
            "penstock_batch_rows",
            "Rows of one transaction: submit, start, settle.",
            _ROWS,
            batch=BATCHES,
        )
        self.batch_seconds = make.tally(
            "penstock_batch_seconds",
            "Time of one transaction: submit, start, settle.",
            _SHORT_S,
            batch=BATCHES,
        )

    def _measure_servers(self, make: Maker) -> None:
        self.redis_breaker_open = make.gauge(
            "penstock_redis_breaker_open", "1 while Redis is left alone."
        )
        self.redis_faults = make.gauges(
            "penstock_redis_faults",
            "1 for each fault of Redis that stops a start: eviction, version, cluster.",
            fault=None,
        )
        self.redis_connections = make.told(
            "penstock_redis_connections", "Connections to Redis: busy, idle.", "state"
        )
        self.postgres_connections = make.told(
            "penstock_postgres_connections",
            "Connections to PostgreSQL by pool (engine: transitions, read: readers): busy, idle.",
            "pool",
            "state",
        )
        self.postgres_pool_size = make.told(
            "penstock_postgres_pool_size", "Connections that a pool may have.", "pool"
        )
        self.postgres_waiters = make.told(
            "penstock_postgres_waiters", "Calls that wait for a connection of a pool.", "pool"
        )
        self.clock_ahead = make.gauges(
            "penstock_clock_ahead_seconds",
            "How far a server's clock is ahead of this machine's: postgres, redis.",
            server=None,
        )

    def _measure_settings(self, make: Maker) -> None:
        self.config_reloads = make.counts(
            "penstock_config_reloads",
            "Times that the settings were read again: changed, unchanged, refused.",
            outcome=("changed", "unchanged", "refused"),
        )
        self.config_loaded_at = make.gauge(
            "penstock_config_loaded_at_seconds",
            "When the settings that count were read, in seconds since 1970.",
        )
        self.config_refused = make.gauge(
            "penstock_config_refused",
            "Whether the settings that were read last were refused, so that older ones count.",
        )
        self.config_restart_needed = make.gauge(
            "penstock_config_restart_needed",
            "Settings that were read and count only after a restart.",
        )

    def _say_who_we_are(self, make: Maker) -> None:
        self.build_info = make.gauges(
            "penstock_build_info",
            "1; which version runs, and on which Python.",
            version=None,
            python=None,
        )
        self.ready = make.gauge(
            "penstock_ready", "1 while /readyz says that this replica is ready."
        )
        self.role = make.gauges(
            "penstock_role", "1 for each role that this replica has.", role=ROLES
        )
        self.leader = make.gauges(
            "penstock_leader",
            "1 while this replica does what one of all does, as it asked last: audit, reconcile; 0 "
            "where it could not ask.",
            task=ELECTED,
        )
