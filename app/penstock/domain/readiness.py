"""Whether this replica can serve, and why not."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reasons` say why it is not ready; `degraded` names what is missing but not needed.

    `loops` holds the age of each loop's last sign of life, in seconds.
    """

    ready: bool
    reasons: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    loops: dict[str, float] = field(default_factory=dict)
