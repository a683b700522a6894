"""What can go wrong between the rooms. The door turns each into one problem document."""

from collections.abc import Mapping

from penstock.domain.ids import JobId


class PenstockError(Exception):
    """The root of all errors that we raise on purpose."""


class WrongSetting(PenstockError):
    """What a setting says can't be used, as a server or this machine found; names the setting."""


class Unavailable(PenstockError):
    """A service is out of reach; try again later. `unknown`: what was sent may have happened."""

    def __init__(self, service: str, why: str, *, unknown: bool = False) -> None:
        super().__init__(f"{service} is out of reach: {why}")
        self.service = service
        self.unknown = unknown


class StoreUnavailable(Unavailable):
    def __init__(self, why: str, *, unknown: bool = False) -> None:
        super().__init__("PostgreSQL", why, unknown=unknown)


class QueueUnavailable(Unavailable):
    def __init__(self, why: str, *, unknown: bool = False) -> None:
        super().__init__("Redis", why, unknown=unknown)


class KeysUnavailable(Unavailable):
    """The key set of tokens could not be fetched."""

    def __init__(self, why: str) -> None:
        super().__init__("the key set at auth.jwks_url", why)


class Contended(PenstockError):
    """Others are changing the same thing just now; nothing has been done, so try again."""


class BadRow(PenstockError):
    """Postgres refused a value of this batch: the batch must be split to find the culprit."""


class TooManyQueues(PenstockError):
    """A new queue would be one too many."""

    def __init__(self, count_max: int) -> None:
        super().__init__(
            f"there are {count_max} queues, and no more may be made: use one that exists, or have "
            "the operator raise queue.count_max"
        )


class KeyBusy(PenstockError):
    """A request with this Idempotency-Key is still under way."""


class KeyReused(PenstockError):
    """This Idempotency-Key was used for another body."""


class DuplicateJob(PenstockError):
    """Live jobs hold these unique keys: their ids by the place of the job that was refused."""

    def __init__(self, holders: Mapping[int, JobId]) -> None:
        super().__init__("a live job of the queue has this unique_key")
        self.holders = holders


class JobNotFound(PenstockError):
    """No such job, or one that the caller may not see."""


class WrongState(PenstockError):
    """The job stands where the call can't move it from."""

    def __init__(self, state: str, allowed: str) -> None:
        super().__init__(f"the job is {state}; {allowed}")
        self.state = state


class WorkflowNotFound(PenstockError):
    """No such workflow, or one that the caller may not see."""


class WrongWorkflowState(PenstockError):
    """The workflow stands where the call can't move it from. `holder`: the job to move instead."""

    def __init__(self, state: str, allowed: str, holder: JobId | None = None) -> None:
        super().__init__(f"the workflow is {state}; {allowed}")
        self.state = state
        self.holder = holder


class NameTaken(PenstockError):
    """The workflow has jobs of these names: the names by the place of the job that was refused."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__("the workflow has a job of this name")
        self.names = names


class ParentNotFound(PenstockError):
    """Jobs depend on jobs that there aren't (any more): those ids by (place of the job, place in
    its depends_on)."""

    def __init__(self, places: Mapping[tuple[int, int], JobId]) -> None:
        super().__init__("there is no such job")
        self.places = places


class TooLarge(PenstockError):
    """A workflow would get more jobs or edges than it may have."""
