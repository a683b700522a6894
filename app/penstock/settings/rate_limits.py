"""The settings of how much one caller may ask."""

from typing import Self

from pydantic import Field, model_validator

from penstock.domain.caller import Role, glob_of
from penstock.domain.rate import Counts, RateRule
from penstock.settings.section import Section
from penstock.settings.values import DAY_S

_PER_S_MAX = 100_000


class RateLimit(Section):
    """A caller (a token's `sub`) gets `limit` in each `period_s`, and `burst` at once."""

    counts: Counts
    limit: int = Field(ge=1, le=1_000_000_000)
    period_s: float = Field(60, ge=0.1, le=DAY_S)
    burst: int | None = Field(None, ge=1, le=1_000_000_000)  # None: as `limit`
    sub: str = Field("*", min_length=1, max_length=255)  # a glob
    roles: tuple[Role, ...] = Field((), max_length=len(Role))  # one of them; (): whatever roles

    @model_validator(mode="after")
    def _is_in_reach(self) -> Self:
        if self.limit / self.period_s > _PER_S_MAX:
            raise ValueError(f"may allow {_PER_S_MAX} a second at most: leave it out for no limit")
        if self.sub.rstrip("*").count("*") > 1:
            raise ValueError("sub may have one * before its end")
        return self

    def __str__(self) -> str:
        whom = f" for {self.sub}" if self.sub != "*" else ""
        roles = f" as {', '.join(self.roles)}" if self.roles else ""
        burst = f", {self.burst} at once" if self.burst is not None else ""
        return f"{self.limit} {self.counts} in {self.period_s:g} s{burst}{whom}{roles}"

    def as_rule(self) -> RateRule:
        return RateRule(
            self.counts,
            self.limit,
            self.period_s,
            self.burst if self.burst is not None else self.limit,
            None if self.sub == "*" else glob_of(self.sub),
            frozenset(self.roles),
        )


class RateLimits(Section):
    """How much one caller may ask."""

    rules: tuple[RateLimit, ...] = Field(
        (),
        max_length=50,
        description="limits: {counts: jobs, changes or reads; limit, period_s, burst, sub, roles}; "
        "the first that fits a caller counts; none = no limit",
    )

    def as_rules(self) -> tuple[RateRule, ...]:
        return tuple(one.as_rule() for one in self.rules)
