"""What we count of what leaves the house."""

from penstock.telemetry.families import Maker

CHANNELS = ("dead-letter", "webhook", "email")
FATES = ("delivered", "later", "never", "gone", "dropped", "held", "grouped")

_DELIVERY_S = (0.01, 0.05, 0.25, 1, 5, 15, 60)


class OfEffects:
    def __init__(self, make: Maker) -> None:
        self.effects = make.counts(
            "penstock_effects",
            "Tries to deliver what leaves the house.",
            channel=CHANNELS,
            fate=FATES,
        )
        self.delivery_seconds = make.tally(
            "penstock_delivery_seconds",
            "From a claim of effects to what came of them, by what came of them.",
            _DELIVERY_S,
            channel=CHANNELS,
            fate=None,
        )
        self.effects_waiting = make.gauges(
            "penstock_effects_waiting",
            "What is to leave the house and has not yet; the same on every replica that relays. "
            "NaN while PostgreSQL doesn't answer it.",
            channel=CHANNELS,
        )
        self.effects_oldest_age = make.gauges(
            "penstock_effects_oldest_age_seconds",
            "Age of the oldest that has not left the house and isn't held by its rule; or NaN.",
            channel=CHANNELS,
        )
        self.effects_held = make.gauges(
            "penstock_effects_held",
            "What its rule holds: until quiet hours end, or for others of its group.",
            channel=CHANNELS,
            waits_for=("quiet", "group"),
        )
        self.endpoints = make.gauges(
            "penstock_endpoints",
            "Endpoints that this replica delivers to just now (busy), or leaves alone for a while "
            "after a failure (resting).",
            channel=CHANNELS,
            state=("busy", "resting"),
        )
        self.endpoints_disabled = make.counts(
            "penstock_endpoints_disabled",
            "Endpoints given up: they failed for too long, or said that they are gone.",
            channel=CHANNELS,
        )
        self.outlet_away = make.gauges(
            "penstock_outlet_away",
            "1 while the broker or the mail server is known to be out of reach.",
            channel=("dead-letter", "email"),
        )
