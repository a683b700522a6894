"""What we count of requests, of who asks, and of what he was refused."""

from penstock.telemetry.families import Maker

COUNTS = ("jobs", "changes", "reads")
FETCHES = ("fetched", "failed", "unusable")
REFUSALS = ("stored", "left-out", "lost")

_HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


class OfRequests:
    def __init__(self, make: Maker) -> None:
        self._count_requests(make)
        self._count_callers(make)

    def _count_requests(self, make: Maker) -> None:
        self.http_requests = make.counts(
            "penstock_http_requests",
            "Requests answered, by route template.",
            route=None,
            method=None,
            status=None,
        )
        self.http_seconds = make.tally(
            "penstock_http_request_duration_seconds",
            "From a request's head to its answer, by route template and class of status (2xx); "
            "without those that asked to wait for a job (Prefer).",
            _HTTP_S,
            route=None,
            method=None,
            status=None,
        )
        self.refused = make.counts(
            "penstock_refused",
            "Requests refused because there was too much to do.",
            **{"class": None, "reason": None},
        )
        self.connections_refused = make.count(
            "penstock_connections_refused", "Connections beyond the limit."
        )

    def _count_callers(self, make: Maker) -> None:
        self.rate_limited = make.counts(
            "penstock_rate_limited",
            "Requests refused by a rate limit, by what it counts: jobs, changes, reads.",
            counts=COUNTS,
        )
        self.rates_alone = make.count(
            "penstock_rate_limits_alone",
            "Times that a budget was not agreed on with other replicas, as Redis was away.",
        )
        self.refusals_logged = make.counts(
            "penstock_refusals_logged",
            "Calls that callers weren't let make (403), by what the audit log made of them.",
            outcome=REFUSALS,
        )
        self.jwks_fetches = make.counts(
            "penstock_jwks_fetches",
            "Fetches of the key set: fetched, failed, unusable.",
            outcome=FETCHES,
        )
        self.jwks_age = make.gauge(
            "penstock_jwks_age_seconds",
            "Since the key set was fetched; NaN: never, or there is none.",
        )
        self.jwks_keys = make.gauge(
            "penstock_jwks_keys", "Keys of the key set that tokens are checked with."
        )
