"""The engine of one replica: every loop and command, made and wired by hand. Used by `server`.

Read `ARCHITECTURE.md` beside it: the stations of a job's walk are the attributes here.
"""

import asyncio
import math
import random
import secrets
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor

from penstock import clock
from penstock.api.door import Recipe
from penstock.api.intake import Within
from penstock.clock import ServerClock
from penstock.commands.change import Changes, Places
from penstock.commands.enqueuer import Enqueuer
from penstock.commands.letters import DeadLetters
from penstock.commands.refusals import Refusals
from penstock.commands.sequel import Sequel
from penstock.commands.submit import Submitter
from penstock.commands.workflows import Workflows
from penstock.domain.attempt import Ending, Outcome
from penstock.domain.ids import JobId, Minter
from penstock.domain.job import Started
from penstock.domain.terms import Current
from penstock.domain.verdict import is_suspect
from penstock.domain.workflow import KIND
from penstock.handlers.context import Context, LogLimits, Services
from penstock.handlers.gathered import Bounds
from penstock.handlers.registry import Handler
from penstock.loops.auditor import Auditor
from penstock.loops.book import QueueBook
from penstock.loops.children import Child, Children, setup_of
from penstock.loops.claims import Claims
from penstock.loops.drain import Drain
from penstock.loops.ears import Ears
from penstock.loops.expirer import Expirer
from penstock.loops.fanout import Fanout
from penstock.loops.held import Held
from penstock.loops.identity import Me
from penstock.loops.judge import Judge
from penstock.loops.keeper import Keeper, Watch
from penstock.loops.missing import Missing
from penstock.loops.nesting import Nester
from penstock.loops.parts import Parts
from penstock.loops.pool import Lane, Pool, Run
from penstock.loops.promoter import Promoter
from penstock.loops.pruner import Pruner
from penstock.loops.reaper import Reaper
from penstock.loops.reconciler import Reconciler
from penstock.loops.redis_watch import RedisWatch
from penstock.loops.registrar import Registrar, identity_of
from penstock.loops.reloader import Reloader
from penstock.loops.renewer import Renewer
from penstock.loops.retries import Retries
from penstock.loops.settle import Settler
from penstock.loops.spreader import Spreader
from penstock.loops.stalls import Stalls
from penstock.loops.surveyor import Surveyor
from penstock.loops.upkeep import Upkeep
from penstock.loops.waiters import Waiters
from penstock.loops.worker import Hands, Worker
from penstock.queue.listener import Listener
from penstock.queue.shelves import Shelves
from penstock.relays import Relays, Sources, outlets_of, reach_of
from penstock.reloading import budget_of, patience_of, policy_of, terms_of, wire_reloader
from penstock.rooms import Rooms
from penstock.rota import loops_of
from penstock.settings import Settings
from penstock.settings.watched import Source, fixed
from penstock.store.audit import Audit
from penstock.store.audit_log import AuditLog
from penstock.store.deliveries import Deliveries
from penstock.store.effects import Effects
from penstock.store.graphs import Graphs
from penstock.store.jobs import Jobs
from penstock.store.letters import Letters
from penstock.store.line import Line
from penstock.store.lists import Lists
from penstock.store.nested import Nested
from penstock.store.parents import Parents
from penstock.store.queues import Queues
from penstock.store.reads import Reads
from penstock.store.retention import Retention
from penstock.store.submissions import Submissions
from penstock.store.workers import KeeperLine, Workers
from penstock.store.workflow_reads import WorkflowReads
from penstock.telemetry.logs import get_logger
from penstock.telling import wire_metrics

log = get_logger(__name__)


class Engine:
    def __init__(self, settings: Settings, rooms: Rooms, source: Source | None = None) -> None:
        self._settings = settings
        self._source = source or fixed(settings)
        self.rooms = rooms
        self.metrics = rooms.metrics
        self.pg_clock, self.redis_clock = ServerClock(), ServerClock()
        # Ids are not secrets: a generator seeded once by the system is enough, and costs no call.
        self.minter = self._minter()
        self.me = Me(self.minter.mint, settings.worker.ttl_s)
        self._is_worker = "worker" in settings.roles
        self._build_store()
        self._build_queue()
        self._build_commands()
        self._build_hands()
        self._build_loops()
        self._wire()
        self.loops = list(loops_of(self, settings.roles))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that this replica runs."""
        return tuple(self._lanes)

    async def drain(self) -> None:
        """Ends all work of this replica; see `loops/drain.py`. Meanwhile what is being delivered
        comes to its end."""
        drain = Drain(
            self._settings.worker,
            self.me,
            self.hands,
            self.jobs,
            self.workers,
            self.enqueuer.drained,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(drain.run())
            group.create_task(self.relays.drain())

    async def close(self) -> None:
        """After the loops have ended: what they held open."""
        self.keeper.stop()
        await self.relays.close()
        await self.children.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        await self.listener.close()

    def runs(self) -> Iterable[Callable[[], Coroutine[None, None, None]]]:
        """What runs for ever without steps: the batchers and the pool."""
        yield self.submitter.run
        yield self.enqueuer.run
        yield self.fanout.run
        yield self.settler.run
        yield self.nester.run
        yield self.pool.run
        yield self.refusals.run

    def _build_store(self) -> None:
        postgres, settings = self.rooms.postgres, self._settings
        policy = policy_of(settings)
        self.reach = reach_of(settings)
        self.current = Current(terms_of(settings, self.rooms.registry))
        kept_s = settings.retention.idempotency_s
        self.submissions = Submissions(postgres, self.pg_clock, kept_s, policy)
        self.effects = Effects(postgres)
        self.jobs, self.line = Jobs(postgres, policy), Line(postgres)
        self.graphs = Graphs(postgres, policy)
        self.queues, self.workers = Queues(postgres, settings.queue.count_max), Workers(postgres)
        self.reads = Reads(postgres, self.rooms.health, self.current)
        self.lists = Lists(postgres, self.rooms.health, self.current)
        self.workflow_reads = WorkflowReads(postgres, self.rooms.health)
        self.letters = Letters(postgres, self.rooms.health)
        self.deliveries = Deliveries(postgres, self.rooms.health)
        self.audit_log = AuditLog(postgres, self.rooms.health)
        self.book = QueueBook(self.queues, settings.queue.priority_aging_s)
        sources = Sources.of(postgres, self.effects, self.workflow_reads, self.current)
        outlets = outlets_of(settings, self.rooms.hooks)
        self.relays = Relays(settings, outlets, sources, self.metrics)

    def _build_queue(self) -> None:
        origin = secrets.token_hex(8)
        self.shelves = Shelves(
            self.rooms.redis,
            self.book.aging_ms,
            self.pg_clock.now_ms,
            lambda: self.redis_clock.now_ms() - self.pg_clock.now_ms(),
            origin,
        )
        self.missing = Missing()
        self.enqueuer = Enqueuer(self.shelves, self._on_ready, self.missing.report)
        self.listener = Listener(self.rooms.redis)
        self.ears = Ears(self.listener, origin)

    def _build_commands(self) -> None:
        rooms = self.rooms
        self.sequel = Sequel(self.enqueuer, self.metrics)
        self.submitter = Submitter(
            self.submissions, self.queues, self.sequel, rooms.health, self.metrics
        )
        places = Places(self.jobs, self.graphs)
        self.changes = Changes(places, self.queues, self.sequel, rooms.health, self.metrics)
        self.workflows = Workflows(self.graphs, self.sequel, rooms.health)
        self.dead_letters = DeadLetters(
            self.letters, self.changes, self.queues, self.sequel, rooms.health
        )
        per_min = self._settings.audit_log.refusals_per_min
        self.refusals = Refusals(self.audit_log, per_min, self.metrics)
        self.waiters = Waiters(self.reads, self.ears.want_ended)

    def _build_hands(self) -> None:
        limits, registry = self._settings.worker, self.rooms.registry
        lanes = [
            Lane("async", (*registry.async_kinds, KIND), limits.concurrency),
            Lane("threads", registry.thread_kinds, limits.threads),
        ]
        lanes = [lane for lane in lanes if lane.kinds and self._is_worker]
        self._lanes = {kind: lane for lane in lanes for kind in lane.kinds}
        self.bounds = Bounds(limits.payload_max_bytes, limits.submit_max, limits.submit_max_bytes)
        setup = setup_of(self._settings, self.bounds)
        self.children = Children(setup, limits.children, limits.child_start_max_s, self.metrics)
        self._alone = Lane("children", (), limits.children, self.children)
        self._services = Services(self.rooms.egress, self.bounds)
        self._log_limits = LogLimits(limits.log_lines_max, limits.log_bytes_max)
        self.threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="handler")
        self.held = Held()
        self.judge = Judge(
            patience_of(limits), Retries(budget_of(limits), self.metrics), self.current
        )
        policy = policy_of(self._settings)
        places = Places(self.jobs, self.graphs)
        self.settler = Settler(places, self.sequel, self.metrics, self.judge, policy)
        self.nested = Nested(self.rooms.postgres, policy)
        self.nester = Nester(self.nested, self.queues, self.sequel, self.settler, self.held)
        mine = [*lanes, self._alone] if lanes else []
        self.pool = Pool(mine, self.threads, limits, self._on_run_ended, self._on_slot_free)
        parents = Parents(self.rooms.postgres, limits.parents_max_bytes)
        self.fanout = Fanout(self.submitter, self.jobs, parents.ids_of)
        self.settler.fanout, self.settler.now_ms = self.fanout, self.pg_clock.now_ms
        self.fanout.on_stored = self.settler.pass_on
        self.hands = Hands(self.pool, self.held, self.settler, self.nester, parents, self._run_of)

    def _build_loops(self) -> None:
        settings = self._settings
        self.parts = Parts(
            settings,
            self.me,
            self.jobs,
            self.line,
            self.shelves,
            self.book,
            self.enqueuer,
            self.metrics,
        )
        claims = {
            lane.name: Claims(self.parts, lane.kinds, self.missing)
            for lane in self.pool.lanes
            if lane.kinds
        }
        self.worker = Worker(self.parts, self.hands, claims)
        slots = sum(lane.slots for lane in self.pool.lanes if lane.kinds)
        who = identity_of(settings.worker.queues, self.kinds, slots)
        self.registrar = Registrar(self.workers, self.me, who, self.held, self.pool)
        self.renewer = Renewer(self.parts, self.held, self.redis_clock)
        self.reconciler = Reconciler(self.parts, self.missing, self.pg_clock.now_ms)
        self.promoter = Promoter(self.shelves, self.metrics)
        self.surveyor = Surveyor(self.parts, self._lanes, self.missing)
        self.reaper = Reaper(
            self.workers, self.jobs, self.settler, self.metrics, settings.worker.ttl_s
        )
        self.expirer = Expirer(self.jobs, self.graphs, self.sequel, self.metrics)
        self.spreader = Spreader(self.graphs, self.sequel)
        self.pruner = Pruner(
            Retention(self.rooms.postgres), settings.retention, self.metrics, settings.book()
        )
        self.upkeep = Upkeep(
            self.jobs, self.queues, self.pool, self.metrics, settings.worker.leaks_max_percent
        )
        self.upkeep.clocks = {"postgres": self.pg_clock, "redis": self.redis_clock}
        self.redis_watch = RedisWatch(self.rooms.redis, settings.redis.accepted_risks, self.metrics)
        self.auditor = Auditor(
            Audit(self.rooms.postgres), self.shelves.lock, self.metrics, settings.audit.every_s
        )
        self.reloader = Reloader(settings, self._source, self.metrics)
        self.keeper = Keeper(
            KeeperLine(self.rooms.dsn, self.rooms.limits),
            self.me,
            self.pg_clock,
            settings.worker,
            Watch(self.registrar.hear_beat, Stalls(self.metrics)),
        )

    def _minter(self) -> Minter:
        return Minter(self.pg_clock.now_ms, random.Random(secrets.token_bytes(32)).getrandbits)

    def _wire(self) -> None:
        """Who hears what from whom, and who reads what for whom."""
        mint, registry = self._minter().mint, self.rooms.registry
        within = Within(
            lambda: Recipe(self.current.terms, mint, registry.payload_errors, self.reach)
        )
        self.nester.read, self.fanout.read = within.workflow, within.children
        self.sequel.on_cancel = self._on_cancel
        self.sequel.on_ended = self.waiters.tell
        self.sequel.on_unfinished = self.spreader.wake.set
        self.sequel.on_effects = self.relays.wake
        self.changes.on_settings = self.book.wake.set
        self.ears.on_ready = self.worker.heat
        self.ears.on_due = self._on_due
        self.ears.on_cancel = self._on_cancel
        self.ears.on_settings = self.book.wake.set
        self.ears.on_ended = self.waiters.tell
        self.ears.on_back = lambda: self.worker.heat(self.book.names())
        self.book.on_change = self.worker.heat
        self.rooms.health.on_down = self.submitter.release
        self.surveyor.on_ready = self.worker.heat
        self.surveyor.on_due = self.promoter.expect
        self.surveyor.on_expired = self.renewer.expect_expired
        self.rooms.redis.on_change = self._on_redis
        wire_reloader(self)
        wire_metrics(self, self._settings)

    def _run_of(self, job: Started) -> Run | None:
        """None if its kind isn't ours: claims name only ours, but a shelf may hold anything."""
        job = self.current.followed(job)
        handler = self.rooms.registry.get(job.kind)
        if handler is None:
            return None
        if is_suspect(job):
            return self._run_alone(job, handler)
        deadline = clock.monotonic() + job.timeout_s
        context = Context(job, deadline, self._services, self._log_limits)
        return Run(job, handler, context, deadline, self._lanes[job.kind])

    def _run_alone(self, job: Started, handler: Handler) -> Run:
        """Its deadline is set when it has a place."""
        context = Context(job, math.inf, self._services, self._log_limits)
        return Run(job, handler, context, math.inf, self._alone, Child(job, context))

    def _on_run_ended(self, run: Run, ending: Ending) -> None:
        self.settler.put(self.held.leaving(run, ending))

    def _on_slot_free(self) -> None:
        self.worker.wake.set()

    def _on_ready(self, queues: Iterable[str]) -> None:
        self.worker.heat(queues)

    def _on_due(self, queue: str, due_ms: int) -> None:
        self.promoter.expect(queue, (due_ms - self.pg_clock.now_ms()) / 1000)

    def _on_cancel(self, id_: JobId) -> None:
        if run := self.pool.find(id_):
            self.pool.stop(run, Outcome.CANCELLED)

    def _on_redis(self, is_open: bool) -> None:
        """Redis went away or came back: claims change their source, shelves may have holes."""
        self.metrics.redis_breaker_open.set(is_open)
        if is_open:
            log.warning("redis_away", why=self.rooms.redis.why)
        else:
            log.warning("redis_back")
        self.worker.wake.set()
        if not is_open:
            self.redis_watch.wake.set()
            self.missing.report(self.book.names())
            self.worker.heat(self.book.names())
