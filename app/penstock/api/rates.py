"""Rate limits at the door: what a request costs, and how its answer tells where the caller stands.

In: a request whose caller is known; later the jobs that it brings. Out: nothing, or 429. Always
holds: an answer tells of a limit if one counted (`RateLimit` and `RateLimit-Policy`, as in
draft-ietf-httpapi-ratelimit-headers-10); where none is set this costs nothing. A submission of one
job costs one, before its body is read; a batch or workflow what it holds, as soon as that has been
counted: before, it is turned away only where nothing at all is left.
"""

import math
from collections.abc import Mapping

from aiohttp import web

from penstock.api.ask import Ask
from penstock.api.door import Door
from penstock.api.gate import Traffic
from penstock.api.problems import Problem
from penstock.domain.caller import Caller
from penstock.domain.rate import Counts, RateRule, Standing

_COUNTS: Mapping[Traffic, Counts] = {
    Traffic.CHANGE: Counts.CHANGES,
    Traffic.READ: Counts.READS,
    Traffic.SUBMISSION: Counts.JOBS,
    Traffic.BATCH: Counts.JOBS,
}

# What an answer is to tell, once a limit has counted.
RATE = web.RequestKey("rate", tuple[RateRule, Standing])


async def enter(door: Door, request: web.BaseRequest, traffic: Traffic, caller: Caller) -> None:
    """Counts a request. Raises 429."""
    limiter = door.limiter
    if limiter is None or traffic not in _COUNTS:
        return
    rule = limiter.rule(_COUNTS[traffic], caller)
    if rule is None:
        return
    if traffic is Traffic.BATCH:
        standing = await limiter.look(rule, caller.sub)
    else:
        standing = await limiter.take(rule, caller.sub, 1)
    _heed(door, request, rule, standing)


async def charge(ask: Ask, jobs: int) -> None:
    """Counts the jobs of a batch or workflow. Raises 429."""
    limiter = ask.door.limiter
    if limiter is None:
        return
    rule = limiter.rule(Counts.JOBS, ask.caller)
    if rule is not None:
        standing = await limiter.take(rule, ask.caller.sub, jobs)
        _heed(ask.door, ask.request, rule, standing)


def tell(request: web.BaseRequest, response: web.Response) -> None:
    """Says in the answer where the caller stands."""
    if RATE not in request:
        return
    rule, standing = request[RATE]
    name = f'"{rule.counts}"'
    policy = f"{name};q={rule.limit};w={math.ceil(rule.period_s)}"
    response.headers["RateLimit-Policy"] = policy
    rest = f"{name};r={standing.left};t={math.ceil(standing.whole_in_s)}"
    response.headers["RateLimit"] = rest


def _heed(door: Door, request: web.BaseRequest, rule: RateRule, standing: Standing) -> None:
    request[RATE] = (rule, standing)
    if not standing.wait_s:
        return
    door.metrics.rate_limited(rule.counts).inc()
    after_s = max(math.ceil(standing.wait_s), 1)
    told = f"{rule.limit} {rule.counts} in {rule.period_s:g} s, {rule.burst} at once"
    raise Problem(
        "rate-limited",
        f"you may have {told} (rate_limits.rules): try again in {after_s} s",
        headers={"Retry-After": str(after_s)},
    )
