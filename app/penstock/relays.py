"""The relays of one replica, made and wired by hand: a part of `engine.py`.

Each channel that is configured has a way out, a composer and a relay; rules that look back have one
sieve. Where a channel isn't configured, nobody can ask for it; what was asked for when it was waits
for an hour and has failed then (decision 0023): it can be sent again once the channel is back.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from penstock.api import views
from penstock.domain.effect import Channel, Fate, Rule, Wish
from penstock.domain.errors import StoreUnavailable
from penstock.domain.terms import Current
from penstock.egress import Egress, networks
from penstock.loops.compose import Composer, Extent, Rules, Show
from penstock.loops.digest import Digests
from penstock.loops.nights import Nights
from penstock.loops.relay import Relay
from penstock.loops.sieve import Sieve
from penstock.loops.supervise import Loop
from penstock.outlets import Mail, Outlet, Reach, Server, Webhook
from penstock.outlets.brokers import Broker, dead_letter_outlet
from penstock.settings import Egress as EgressSettings
from penstock.settings import Settings, Smtp
from penstock.settings import Webhook as WebhookSettings
from penstock.store.effects import Effects, Waiting
from penstock.store.ends import Ends
from penstock.store.groups import Groups
from penstock.store.postgres import Postgres
from penstock.store.rule_marks import RuleMarks
from penstock.store.workflow_reads import WorkflowReads
from penstock.telemetry.logs import get_logger
from penstock.telemetry.metrics import Metrics

log = get_logger(__name__)

_KIB = 1024
_GAUGES_S = 5.0
_MAIL_LANES = 5  # a connection each, to one server
_DRAIN_S = 18.0  # a call that hangs is over by then; or what handlers get, and 5 s, if that is less

_NONE = Waiting(0, 0.0, 0, 0)
_UNKNOWN = Waiting(*[float("nan")] * 4)  # an old figure would look like a good one
_UNSERVED_S = 3600.0  # for so long nobody has tried what is due
_SET_BY = {
    Channel.DEAD_LETTER: "broker",
    Channel.WEBHOOK: "webhook.secrets",
    Channel.EMAIL: "smtp.host",
}

SHOW = Show(views.job, views.attempt, views.workflow, views.dead_job)
EXTENTS = {
    Channel.DEAD_LETTER: Extent(900 * _KIB, whole=True),
    Channel.WEBHOOK: Extent(256 * _KIB),
    Channel.EMAIL: Extent(0),
}


def rules_of(settings: Settings) -> tuple[Rule, ...]:
    return tuple(rule.as_rule() for rule in settings.notifications.rules)


def reach_of(settings: Settings) -> Reach:
    """What can be asked for; raises WrongSetting for what the settings ask for in vain."""
    reach = reach_by(settings.egress, settings.webhook, settings.smtp)
    reach.demand(rules_of(settings), _wishes_of(settings))
    return reach


def reach_by(egress: EgressSettings, webhook: WebhookSettings, smtp: Smtp) -> Reach:
    return Reach(
        networks(egress.allow),
        hooks=bool(webhook.secrets),
        mails=smtp.host is not None,
        schemes=webhook.schemes,
    )


def _wishes_of(settings: Settings) -> Iterable[tuple[str, Wish]]:
    for group, said in (("kinds", settings.kinds), ("queues", settings.queues)):
        for name, one in said.items():
            for notice in one.notify or ():
                yield f"{group}.{name}.notify", notice.as_wish()


def outlets_of(settings: Settings, hooks: Egress) -> dict[Channel, Outlet]:
    """A way out for each channel that is configured."""
    outlets = callers_of(settings.webhook, settings.smtp, hooks)
    if (broker := dead_letter_outlet(settings)) is not None:
        outlets[Channel.DEAD_LETTER] = broker
    return outlets


def callers_of(webhook: WebhookSettings, smtp: Smtp, hooks: Egress) -> dict[Channel, Outlet]:
    """Those of them that hold nothing open, so that others may take their places."""
    outlets: dict[Channel, Outlet] = {}
    if secrets := webhook.secrets:
        keys = [secret.get_secret_value() for secret in secrets]
        outlets[Channel.WEBHOOK] = Webhook(hooks, keys, webhook.timeout_s)
    if (server := server_of(smtp)) is not None:
        outlets[Channel.EMAIL] = Mail(server)
    return outlets


def server_of(smtp: Smtp) -> Server | None:
    if smtp.host is None or smtp.from_address is None:
        return None
    return Server(
        smtp.host,
        smtp.port,
        smtp.from_address,
        smtp.username,
        smtp.password.get_secret_value() if smtp.password is not None else None,
        smtp.tls,
        smtp.ca_file,
        smtp.timeout_s,
    )


@dataclass(frozen=True, slots=True)
class Sources:
    """What messages are made of."""

    effects: Effects
    ends: Ends
    workflows: WorkflowReads
    marks: RuleMarks
    groups: Groups

    @classmethod
    def of(
        cls, postgres: Postgres, effects: Effects, workflows: WorkflowReads, current: Current
    ) -> "Sources":
        ends, marks = Ends(postgres, current), RuleMarks(postgres)
        return cls(effects, ends, workflows, marks, Groups(postgres))


class Relays:
    """`wake()` after effects were written: else they are found within a second."""

    def __init__(
        self,
        settings: Settings,
        outlets: Mapping[Channel, Outlet],
        sources: Sources,
        metrics: Metrics,
    ) -> None:
        self._effects = sources.effects
        self._metrics = metrics
        self._drain_s = min(_DRAIN_S, settings.worker.drain_grace_s + 5)
        self.sieve = Sieve(rules_of(settings), sources.marks)
        self.nights = Nights(sources.effects, self.sieve)
        self.digests = Digests(sources.groups, sources.ends, self.sieve, SHOW.job)
        rules = Rules(self.sieve, self.digests)
        self.by_channel: dict[Channel, Relay] = {}
        for channel, outlet in outlets.items():
            composer = Composer(sources.ends, sources.workflows, SHOW, rules, EXTENTS[channel])
            relay = Relay(channel, outlet, sources.effects, composer.compose, metrics)
            relay.give_up = self.digests.give_up
            if channel is Channel.WEBHOOK:
                relay.patience_s = settings.webhook.disable_after_s
            if channel is Channel.DEAD_LETTER:
                broker = cast(Broker, outlet)
                relay.is_shut = broker.is_away
            if isinstance(outlet, Mail):
                relay.lanes = _MAIL_LANES
            self.by_channel[channel] = relay

    def use(self, settings: Settings, outlets: Mapping[Channel, Outlet]) -> None:
        """These count from now on, of the channels that there are: what is under way ends as it
        began."""
        self.sieve.use(rules_of(settings))
        for channel, outlet in outlets.items():
            if channel in self.by_channel:
                self.by_channel[channel].outlet = outlet
        if Channel.WEBHOOK in self.by_channel:
            self.by_channel[Channel.WEBHOOK].patience_s = settings.webhook.disable_after_s

    def loops(self) -> Iterable[Loop]:
        for channel, relay in self.by_channel.items():
            yield Loop(f"relay-{channel}", relay.step, relay.wake)
        if self.by_channel:
            yield Loop("recoveries", self.sieve.look_for_recoveries)
            yield Loop("groups", self.digests.tidy)
            yield Loop("nights", self.nights.step)
        yield Loop("outbox", self.gauge)

    def away(self) -> list[str]:
        """The brokers and mail servers that are known to be out of reach."""
        return [server.name for _, server in self._to_servers() if server.why is not None]

    def _to_servers(self) -> Iterable[tuple[Channel, Broker | Mail]]:
        to = (Channel.DEAD_LETTER, Channel.EMAIL)
        return [
            (channel, cast(Broker | Mail, relay.outlet))
            for channel, relay in self.by_channel.items()
            if channel in to
        ]

    def wake(self) -> None:
        for relay in self.by_channel.values():
            relay.wake.set()

    async def gauge(self) -> float:
        """How much waits to be delivered, and for how long; what nobody will deliver is ended."""
        self._gauge_endpoints()
        try:
            waiting = await self._effects.waiting()
        except StoreUnavailable:
            self._gauge_waiting(dict.fromkeys(Channel, _UNKNOWN))
            raise
        self._gauge_waiting(waiting)
        for channel in waiting.keys() - self.by_channel.keys():
            await self._give_up(channel)
        return _GAUGES_S

    def _gauge_waiting(self, waiting: Mapping[Channel, Waiting]) -> None:
        for channel in Channel:
            found = waiting.get(channel, _NONE)
            self._metrics.effects_waiting(channel).set(found.count)
            self._metrics.effects_oldest_age(channel).set(found.oldest_s)
            self._metrics.effects_held(channel, "quiet").set(found.quiet)
            self._metrics.effects_held(channel, "group").set(found.gathering)

    def _gauge_endpoints(self) -> None:
        for channel, relay in self.by_channel.items():
            self._metrics.endpoints(channel, "busy").set(relay.busy)
            self._metrics.endpoints(channel, "resting").set(len(relay.rests.names()))
        for channel, outlet in self._to_servers():
            self._metrics.outlet_away(channel).set(outlet.why is not None)

    async def _give_up(self, channel: Channel) -> None:
        """Here the channel isn't configured; where it still is, what is due is tried."""
        setting = _SET_BY[channel]
        why = f"{setting} has not been set for {_UNSERVED_S:g} s: set it, and send this again"
        if count := await self._effects.give_up_unserved(channel, _UNSERVED_S, why):
            log.warning("effects_given_up", channel=channel, count=count, hint=f"set {setting}")
            self._metrics.effects(channel, Fate.NEVER).inc(count)

    async def drain(self) -> None:
        relays = self.by_channel.values()
        await asyncio.gather(*(relay.drain(self._drain_s) for relay in relays))

    async def close(self) -> None:
        for relay in self.by_channel.values():
            await relay.close()
