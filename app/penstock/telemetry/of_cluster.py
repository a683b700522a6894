"""Figures of all replicas together, as PostgreSQL tells them when we are scraped.

Each replica exports the same ones: ask for `max by (queue) (…)`. A replica that is killed takes
none of them along, for nobody counts them. Where PostgreSQL doesn't answer they are left out, and
`penstock_cluster_told` is 0: no figure at all is better than an old one.
"""

from penstock.telemetry.families import Maker

STATES = ("blocked", "scheduled", "ready", "running", "dead")


class OfCluster:
    def __init__(self, make: Maker) -> None:
        self.cluster_told = make.gauge(
            "penstock_cluster_told",
            "1 where PostgreSQL told the figures of all replicas for this scrape; 0: left out.",
        )
        self.queue_depth = make.told(
            "penstock_queue_depth",
            "Jobs of all replicas by state: blocked, scheduled, ready, running, and dead.",
            "queue",
            "state",
        )
        self.queue_oldest = make.told(
            "penstock_queue_oldest_ready_age_seconds",
            "For how long the oldest ready job has waited; 0: none waits.",
            "queue",
        )
        self.queue_paused = make.told(
            "penstock_queue_paused", "1 while nothing of a queue is started.", "queue"
        )
        self.workers = make.told(
            "penstock_workers", "Replicas that run jobs and renew their lease in PostgreSQL."
        )
        self.workers_slots = make.told("penstock_workers_slots", "The slots of all replicas.")
        self.cluster = (
            self.queue_depth,
            self.queue_oldest,
            self.queue_paused,
            self.workers,
            self.workers_slots,
        )
