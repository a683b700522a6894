"""What answers about the settings look like: see `shapes`."""

from typing import Annotated, Any

from typing_extensions import TypedDict

from penstock.api.fields import says
from penstock.api.shapes import Time

_VERSION = says("The same on each replica whose settings are alike.", "9f86d081884c")
_LOADED = says("When the settings that count were read.", "2026-11-18T11:06:40.000Z")
_WAITS = says("Keys that were read, and count only after a restart.", [])


class Setting(TypedDict):
    """One setting."""

    key: Annotated[str, says("Its name; as a variable: PENSTOCK_HTTP__PORT.", "jobs.max_attempts")]
    value: Annotated[Any, says("What counts; `********` for a secret.", 5)]
    source: Annotated[str, says("Where it comes from.", "config/base.yaml, line 12")]
    live: Annotated[bool, says("Whether a change counts without a restart.", True)]
    description: Annotated[str, says("What it means.", "failures after which a job is dead")]


class Refused(TypedDict):
    """What was read and doesn't count."""

    at: Annotated[Time, says("When it was read.", "2026-11-18T11:06:40.000Z")]
    by: Annotated[
        str, says("What had it read: file, poll, signal, replica, or a caller's `sub`.", "file")
    ]
    detail: Annotated[str, says("Every mistake.", "jobs.priority = 10 …: it should be at most 9")]


class Config(TypedDict):
    """The settings of the replica that answers."""

    version: Annotated[str, _VERSION]
    loaded_at: Annotated[Time, _LOADED]
    restart_needed: Annotated[list[str], _WAITS]
    refused: Annotated[
        Refused | None, says("What was read last, if it was refused: older ones count.", None)
    ]
    settings: Annotated[list[Setting], says("All of them.", [])]


class Reloaded(TypedDict):
    """What came of reading the settings again."""

    version: Annotated[str, _VERSION]
    loaded_at: Annotated[Time, _LOADED]
    changed: Annotated[
        list[str], says("Keys that count in another way now.", ["jobs.max_attempts"])
    ]
    restart_needed: Annotated[list[str], _WAITS]
