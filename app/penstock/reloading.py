"""What is made of live settings, and how a reload exchanges it: a part of `engine` and `server`.

In: settings that were judged whole. Out: what puts them in place. Always holds: whatever may fail
is made before anything is exchanged; and that takes no turn of the event loop, so nobody sees half
of it.
"""

from collections.abc import Callable, Container
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING

from penstock.access import Access
from penstock.api.app import Front
from penstock.api.door import Door, Limits
from penstock.api.peers import Peers
from penstock.domain.audit_log import Action, Entry
from penstock.domain.autoscale import Rule
from penstock.domain.effect import Policy
from penstock.domain.retry_budget import BudgetRules
from penstock.domain.terms import Terms
from penstock.domain.verdict import Patience
from penstock.egress import networks
from penstock.handlers.registry import Registry
from penstock.loops.children import setup_of
from penstock.loops.reloader import REPLICA, Reload, details_of
from penstock.outlets.brokers import dead_letter_endpoint
from penstock.queue import keys
from penstock.relays import callers_of, reach_of, rules_of
from penstock.settings import Http, Log, Settings, Worker
from penstock.telemetry import logs

if TYPE_CHECKING:
    from penstock.engine import Engine

log = logs.get_logger(__name__)


def terms_of(settings: Settings, registry: Registry) -> Terms:
    served: Container[str] = frozenset((*registry.async_kinds, *registry.thread_kinds))
    return Terms(settings.book(), served)


def policy_of(settings: Settings) -> Policy:
    return Policy(dead_letter_endpoint(settings), rules_of(settings))


def patience_of(limits: Worker) -> Patience:
    return Patience(limits.losses_max, limits.crashes_max)


def budget_of(limits: Worker) -> BudgetRules:
    return BudgetRules(
        limits.retry_share,
        limits.retry_min_per_s,
        limits.retry_burst,
        limits.retry_spread_max_s,
    )


def limits_of(http: Http) -> Limits:
    return Limits(**{field.name: getattr(http, field.name) for field in fields(Limits)})


def use_log(settings: Log) -> None:
    logs.set_level(settings.level)
    logs.set_share(settings.burst, settings.per_s)
    logs.show_handlers(settings.handlers)


def swap_of_door(
    door: Door, front: Front, access: Access, settings: Settings
) -> Callable[[], None]:
    """Exchanges what the front door has."""
    new = replace(
        door,
        limits=limits_of(settings.http),
        reach=reach_of(settings),
        peers=Peers(settings.http.trusted_proxies),
        logs_submissions=settings.audit_log.submissions,
        scaling=scaling_of(settings),
    )

    def swap() -> None:
        access.change(settings.auth, settings.rate_limits)
        front.use(new)

    return swap


def scaling_of(settings: Settings) -> Rule:
    """What `GET /v1/autoscale` goes by."""
    asked = settings.autoscale
    return Rule(
        asked.target_age_s,
        asked.slots_per_replica,
        settings.worker.concurrency,
        asked.replicas_min,
        asked.replicas_max,
    )


def wire_reloader(engine: "Engine") -> None:
    """Who hears of reloads, and who has them happen."""
    reloader = engine.reloader
    reloader.swaps.append(partial(swap_of, engine))
    reloader.tell_others = partial(engine.enqueuer.tell, keys.SETTINGS, keys.CONFIGURATION)
    reloader.on_reload = partial(_noted, engine)
    engine.ears.on_configuration = partial(reloader.ask, REPLICA)


async def _noted(engine: "Engine", reload: Reload) -> None:
    """Into the audit log, what no caller asked for: his entry is made where he asks. A reload is
    memory: nothing is held up or undone where the entry can't be stored."""
    if reload.of_caller or reload.by == REPLICA:  # whose own replica tells of it
        return
    entry = Entry(engine.minter.mint(), Action.CONFIG_RELOAD, reload.by, details=details_of(reload))
    try:
        await engine.audit_log.add([entry if reload.refusal is None else entry.refused()])
    except Exception as error:  # no right to add to it, for one
        log.warning("reload_not_in_audit_log", why=str(error))


def swap_of(engine: "Engine", settings: Settings) -> Callable[[], None]:
    """Exchanges what the engine has. Raises WrongSetting."""
    rooms = engine.rooms
    terms, policy = terms_of(settings, rooms.registry), policy_of(settings)
    reach, allow = reach_of(settings), networks(settings.egress.allow)
    callers = callers_of(settings.webhook, settings.smtp, rooms.hooks)
    setup = setup_of(settings, engine.bounds)

    def swap() -> None:
        use_log(settings.log)
        engine.current.terms = terms
        for teller in (
            engine.submissions,
            engine.jobs,
            engine.graphs,
            engine.nested,
            engine.settler,
        ):
            teller.policy = policy
        engine.submissions.answers_kept_s = settings.retention.idempotency_s
        engine.reach = reach
        rooms.egress.allow(allow)
        rooms.hooks.allow(allow)
        # What children are given besides isn't live: they are made of what the start had.
        engine.children.setup = replace(
            engine.children.setup, egress_allow=setup.egress_allow, log_level=setup.log_level
        )
        engine.relays.use(settings, callers)
        engine.judge.patience = patience_of(settings.worker)
        engine.judge.retries.use(budget_of(settings.worker))
        engine.pruner.use(settings.retention, settings.book())
        engine.auditor.every_s = settings.audit.every_s

    return swap
