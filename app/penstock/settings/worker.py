"""The settings of the loop that runs jobs."""

from typing import Self

from pydantic import Field, model_validator

from penstock.settings.section import Section
from penstock.settings.values import (
    DAY_S,
    KIB,
    MIB,
    QueueGlob,
)

_CHILD_MIN_BYTES = 256 * MIB  # of address space, of which most is never touched


class Worker(Section):
    """The loop that runs jobs."""

    concurrency: int = Field(500, ge=1, le=10_000, description="most async attempts at once")
    threads: int = Field(32, ge=1, le=1000, description="threads for plain-function handlers")
    queues: tuple[QueueGlob, ...] = Field(
        ("*",), min_length=1, max_length=100, description="queues to work on (globs)"
    )
    claim_max: int = Field(500, ge=1, le=5000, description="most jobs in one claim")
    drain_grace_s: float = Field(
        25, ge=0, le=3600, description="time that running attempts get at a shutdown"
    )
    cancel_grace_s: float = Field(
        5, ge=0, le=600, description="time that a cancelled attempt gets to clean up"
    )
    unsettled_max: int = Field(
        10_000, ge=100, le=1_000_000, description="most outcomes waiting to be written"
    )
    unsettled_max_bytes: int = Field(
        64 * MIB, ge=MIB, le=4096 * MIB, description="most bytes of such outcomes"
    )
    result_max_bytes: int = Field(MIB, ge=KIB, le=64 * MIB, description="largest result of a job")
    parents_max_bytes: int = Field(
        16 * MIB, ge=KIB, le=256 * MIB, description="most bytes of its parents' results for a job"
    )
    payload_max_bytes: int = Field(
        16 * MIB, ge=KIB, le=256 * MIB, description="largest payload once these are in it"
    )
    submit_max: int = Field(
        10_000, ge=0, le=10_000, description="most jobs that an attempt may submit"
    )
    submit_max_bytes: int = Field(
        16 * MIB, ge=KIB, le=256 * MIB, description="most bytes of jobs that an attempt may submit"
    )
    ttl_s: float = Field(10, ge=0.2, le=600, description="silence after which a worker is lost")
    beat_s: float = Field(2, ge=0.05, le=60, description="time between signs of life")
    stall_max_s: float = Field(
        60, ge=1, le=3600, description="blocked loop after which the process ends itself"
    )
    retry_share: float = Field(
        0.2, ge=0, le=1, description="most retries of a kind, as a share of its recent starts"
    )
    retry_min_per_s: float = Field(
        100, ge=0.01, le=1e6, description="retries of a kind a second that are never moved out"
    )
    retry_burst: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="retries of a kind at once that move out by no more than 1 s each 500",
    )
    retry_spread_max_s: float = Field(
        300, ge=0, le=DAY_S, description="furthest that a retry beyond these moves out; 0 = never"
    )
    log_lines_max: int = Field(1000, ge=0, le=100_000, description="most log lines of an attempt")
    log_bytes_max: int = Field(
        64 * KIB, ge=0, le=16 * MIB, description="most log bytes of an attempt"
    )
    losses_max: int = Field(
        20, ge=1, le=1000, description="lost workers after which a job is given up"
    )
    children: int = Field(
        64, ge=1, le=1000, description="most jobs at once that run in a child process of their own"
    )
    crashes_max: int = Field(
        3, ge=1, le=100, description="crashed child processes after which a job is poison"
    )
    child_start_max_s: float = Field(
        30, ge=0.1, le=600, description="time that a child process gets to import the handlers"
    )
    child_memory_max_bytes: int = Field(
        0, ge=0, le=2**50, description="most address space of a child process; 0 = no limit"
    )
    leaks_max_percent: float = Field(
        20, ge=0, le=100, description="leaked slots of a lane beyond which the process restarts"
    )

    @model_validator(mode="after")
    def _leaves_a_child_room(self) -> Self:
        if 0 < self.child_memory_max_bytes < _CHILD_MIN_BYTES:
            raise ValueError(
                f"worker.child_memory_max_bytes ({self.child_memory_max_bytes}) must be 0, which "
                f"means no limit, or at least {_CHILD_MIN_BYTES}: less doesn't hold an interpreter"
            )
        return self

    @model_validator(mode="after")
    def _outlives_a_missed_beat(self) -> Self:
        if self.ttl_s <= 2 * self.beat_s:
            raise ValueError(
                f"worker.ttl_s ({self.ttl_s:g}) must be more than twice "
                f"worker.beat_s ({self.beat_s:g}), else one late beat loses a worker"
            )
        return self
