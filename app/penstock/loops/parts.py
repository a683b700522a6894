"""What the loops share: settings, who we are, and the rooms they work with. Made in engine.py."""

from dataclasses import dataclass

from penstock.commands.enqueuer import Enqueuer
from penstock.loops.book import QueueBook
from penstock.loops.identity import Me
from penstock.queue.shelves import Shelves
from penstock.settings import Settings
from penstock.store.jobs import Jobs
from penstock.store.line import Line
from penstock.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    me: Me
    jobs: Jobs
    line: Line
    shelves: Shelves
    book: QueueBook
    enqueuer: Enqueuer
    metrics: Metrics
