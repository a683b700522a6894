"""`penstock doctor`, wired by hand: looks at all that a replica stands on, and changes nothing.

In: the settings. Out: findings. Each check is a small function that hands in what it finds; they
run side by side, each within its time, so that a server that hangs hides nothing but itself. What
is good and what isn't is decided in `domain/checkup.py` and `checkup_servers.py`.
"""

import asyncio
import resource
import shutil
import sys
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from penstock import keys, places
from penstock.domain import checkup, checkup_servers
from penstock.domain.checkup import Finding
from penstock.domain.errors import KeysUnavailable, PenstockError, WrongSetting
from penstock.egress import Egress, EgressError, EgressRefused, fetched, pinned
from penstock.keys import KeyRefused
from penstock.outlets import Mail
from penstock.outlets.brokers import dead_letter_outlet
from penstock.queue import checkup as redis_checkup
from penstock.queue.redis import RedisDoor, greet
from penstock.relays import reach_of, server_of
from penstock.settings import Settings, environment, without_settings
from penstock.store import checkup as store_checkup
from penstock.store import postgres
from penstock.store.checkup import Session

_OWN_CONNECTIONS = 2  # the keeper's and the pings', beside the pools
_KEYS_GET_OLD = "mend it before the keys that replicas have are too old (auth.jwks_stale_s)"
_ANYWHERE = ("0.0.0.0/0", "::/0")  # the operator says where
_HANDLERS = """
import sys
from penstock.handlers.registry import Registry
print(len(Registry.load(sys.argv[1:]).kinds))
"""

Tell = Callable[[Finding], None]
Look = Callable[[Session, "Case", Tell], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """What is looked at. `url`: the server to ask, or None for the one of the settings. `skew_s`
    is added to this machine's clock: tests set it wrong."""

    settings: Settings
    url: str | None = None
    timeout_s: float = 10.0
    skew_s: float = 0.0

    @property
    def pools(self) -> int:
        """Connections to PostgreSQL of one replica."""
        store = self.settings.postgres
        return store.engine_connections + store.read_connections + _OWN_CONNECTIONS


async def examine(case: Case, only: Collection[str] | None = None) -> list[Finding]:
    """All findings, in the order of the checks; `only`: of these checks."""
    chosen = [name for name in CHECKS if only is None or name in only]
    found = await asyncio.gather(*(_bounded(name, CHECKS[name], case) for name in chosen))
    return [finding for findings in found for finding in findings]


def demand_fit(settings: Settings) -> None:
    """Raises WrongSetting, as a start does, for what is right by itself and not together: rules and
    kinds that could tell nobody."""
    reach_of(settings)


async def _bounded(
    name: str, check: Callable[[Case, Tell], Awaitable[None]], case: Case
) -> list[Finding]:
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(case.timeout_s):
            await check(case, findings.append)
    except TimeoutError:
        findings.append(checkup.wrong(name, f"no answer within {case.timeout_s:g} s"))
    except PenstockError as error:
        findings.append(checkup.wrong(name, str(error)))
    except Exception as error:
        findings.append(_failed(name, error))
    return findings


def _failed(name: str, error: Exception) -> Finding:
    """An error of a library, whose text may hold what is secret."""
    return checkup.wrong(name, f"it failed: {type(error).__name__}")


async def _look_at_settings(case: Case, tell: Tell) -> None:
    settings = case.settings
    folder = places.config_dir()
    try:
        demand_fit(settings)
    except WrongSetting as error:
        tell(checkup.wrong("settings", str(error)))
    else:
        tell(checkup.ok("settings", f"right, for {settings.env}"))
    if not folder.is_dir():
        advice = "fine where all comes by the environment; else install it again"
        tell(checkup.warning("settings.files", f"there is no {folder}", advice))
    if settings.auth.jwt_secret is not None:
        tell(checkup.of_secret(settings.auth.jwt_secret.get_secret_value()))
    if count := sum(len(source.keys) for source in settings.auth.public_keys):
        tell(checkup.ok("auth.public_keys", f"{count}"))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = sys.maxsize if limit == resource.RLIM_INFINITY else limit
    tell(checkup.of_files(files, settings.http.connections_max, case.pools))


async def _look_at_handlers(case: Case, tell: Tell) -> None:
    """In a process of its own: what modules do when they are imported is theirs."""
    here = without_settings(environment())
    here["PYTHONPATH"] = ":".join([str(Path.cwd()), *filter(None, sys.path)])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HANDLERS, *case.settings.handlers.modules),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=here,
    )
    try:
        out, err = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    if process.returncode == 0:
        lines = out.decode(errors="replace").split()
        tell(checkup.ok("handlers", f"{lines[-1] if lines else 0} kinds"))
    else:
        lines = err.decode(errors="replace").strip().splitlines() or ["no reason"]
        why = lines[-1].removeprefix("penstock.handlers.errors.HandlerError: ")
        tell(checkup.wrong("handlers", why[:500], "mend it, or change handlers.modules"))


async def _look_at_postgres(case: Case, tell: Tell) -> None:
    store = case.settings.postgres
    limits = postgres.Limits(store.connect_timeout_s, store.command_timeout_s)
    try:
        async with store_checkup.session(store.address, limits) as session:
            tell(checkup.ok("postgres", postgres.place_of(store.address)))
            for name, look in LOOKS.items():
                try:
                    await look(session, case, tell)
                except store_checkup.Unseen as error:
                    tell(checkup.skipped(name, str(error)))
                except PenstockError as error:  # the next look may have an answer in time
                    tell(checkup.wrong(name, str(error)))
                except Exception as error:
                    tell(_failed(name, error))
    except Exception as error:
        told = postgres.explain(error, store.address)
        if told is None:
            raise
        raise told from error


async def _state(session: Session, case: Case, tell: Tell) -> None:
    accepted = case.settings.postgres.accepted_risks
    for finding in checkup_servers.of_postgres(await session.state(), accepted):
        tell(finding)


async def _room(session: Session, case: Case, tell: Tell) -> None:
    room, vacuums, is_tls, _ = await session.room()
    tell(checkup_servers.of_autovacuum(is_on=vacuums))
    is_local = _is_local(case.settings.postgres.dsn.get_secret_value())
    setting = "postgres.tls: verify-full"
    tell(checkup.of_tls("postgres.tls", setting, is_tls=is_tls, is_local=is_local))
    replicas = 1
    with suppress(store_checkup.Unseen):
        replicas = (await session.crew()).alive
    tell(checkup_servers.of_connections(room, case.pools, replicas))


async def _held(session: Session, _case: Case, tell: Tell) -> None:
    """What keeps dead rows from being cleared away."""
    tell(checkup_servers.of_transaction(await session.transaction()))
    tell(checkup_servers.of_prepared(await session.prepared()))
    for finding in checkup_servers.of_slots(await session.slots()):
        tell(finding)


async def _tables(session: Session, _case: Case, tell: Tell) -> None:
    tables, age = await session.tables()
    for finding in checkup_servers.of_tables(tables):
        tell(finding)
    tell(checkup_servers.of_wraparound(age))


async def _schema(session: Session, _case: Case, tell: Tell) -> None:
    try:
        pending = await session.pending()
    except PenstockError as error:  # newer than we are, or changed
        tell(checkup.wrong("postgres.schema", str(error)))
        return
    tell(checkup_servers.of_schema(pending))
    if not pending:
        role = (await session.room())[3]
        tell(checkup_servers.of_rights(await session.rights_lacking(), role))


async def _clock(session: Session, case: Case, tell: Tell) -> None:
    tell(checkup.of_skew("postgres.clock", await session.ahead_s() - case.skew_s))


async def _disk(session: Session, case: Case, tell: Tell) -> None:
    """Known where its files are on this machine only."""
    place = await session.data_directory()
    if place is None or not _is_local(case.settings.postgres.dsn.get_secret_value()):
        tell(checkup.skipped("postgres.disk", "its files are not ours to see"))
        return
    try:
        space = shutil.disk_usage(place)
    except OSError:
        tell(checkup.skipped("postgres.disk", "its files are not ours to see"))
        return
    tell(checkup.of_disk("postgres.disk", space.free, space.total))


async def _work(session: Session, _case: Case, tell: Tell) -> None:
    for finding in checkup_servers.of_crew(await session.crew()):
        tell(finding)
    for finding in checkup_servers.of_backlog(await session.backlog()):
        tell(finding)


async def _look_at_redis(case: Case, tell: Tell) -> None:
    section = case.settings.redis
    if why := await greet(section.address, section.timeout_s):
        tell(checkup.wrong("redis", why, "until then jobs run without it, more slowly"))
        return
    door = RedisDoor(section.address, section.timeout_s)
    url = section.url.get_secret_value()
    try:
        tell(checkup.ok("redis", f"Redis at {urlsplit(url).netloc.rpartition('@')[2]}"))
        is_tls = url.startswith("rediss://")
        setting = "redis.url to rediss://…"
        tell(checkup.of_tls("redis.tls", setting, is_tls=is_tls, is_local=_is_local(url)))
        state = await redis_checkup.state_of(door)
        if state is None:
            tell(
                checkup.skipped("redis.version", "we may not ask: give our user the right to INFO")
            )
        else:
            for finding in checkup_servers.of_redis(state, section.accepted_risks):
                tell(finding)
        tell(checkup.of_skew("redis.clock", await redis_checkup.ahead_s(door) - case.skew_s))
    finally:
        await door.close()


async def _look_at_broker(case: Case, tell: Tell) -> None:
    outlet = dead_letter_outlet(case.settings)
    if outlet is None:
        tell(checkup.skipped("broker", "none is set: dead letters stay in PostgreSQL"))
        return
    try:
        _tell_fault(outlet.name, await outlet.fault(), tell)
    finally:
        await outlet.close()


async def _look_at_mail(case: Case, tell: Tell) -> None:
    server = server_of(case.settings.smtp)
    if server is None:
        tell(checkup.skipped("smtp", "no smtp.host is set: no mail is sent"))
        return
    _tell_fault("smtp", await Mail(server).fault(), tell)


def _tell_fault(name: str, fault: str | None, tell: Tell) -> None:
    if fault is None:
        tell(checkup.ok(name, "it lets us in"))
    else:
        tell(checkup.wrong(name, fault, "what is for it waits, and is sent when it is back"))


async def _look_at_key_set(case: Case, tell: Tell) -> None:
    """As a replica fetches it."""
    auth = case.settings.auth
    if auth.jwks_url is None:
        tell(checkup.skipped("auth.jwks_url", "none is set: no key set is fetched"))
        return
    async with pinned(case.settings.egress.connect_timeout_s) as own:
        try:
            data = await fetched(own, auth.jwks_url, auth.jwks_max_bytes, auth.jwks_timeout_s)
            found, passed_over = keys.of_published(data, auth.jwks_keys_max)
        except KeysUnavailable as error:
            tell(checkup.wrong("auth.jwks_url", str(error), _KEYS_GET_OLD))
        except KeyRefused as error:
            tell(checkup.wrong("auth.jwks_url", f"what is there {error}", _KEYS_GET_OLD))
        else:
            tell(checkup.of_key_set([key.kid for key in found], passed_over))


async def _look_at_server(case: Case, tell: Tell) -> None:
    """A server that runs: the one that was named, or the one that these settings would start."""
    http = case.settings.http
    if case.url is None and http.port == 0:
        tell(checkup.skipped("server", "http.port is 0, any free one: name a server by --url"))
        return
    url = case.url or f"http://{http.caller_host}:{http.port}"
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https") or not place:
        tell(checkup.wrong("server", "--url must be as http://127.0.0.1:8080"))
        return
    async with Egress(_ANYWHERE) as egress:
        try:
            answer = await egress.request(
                "GET", f"{parts.scheme}://{place}/readyz", timeout_s=case.timeout_s / 2
            )
        except (EgressError, EgressRefused) as error:
            if case.url is None:
                tell(checkup.skipped("server", f"none answers at {url}; name one by --url"))
            else:
                tell(checkup.wrong("server", f"{place}: {error}", "is it running there?"))
            return
    try:
        told = orjson.loads(answer.body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        tell(checkup.wrong("server", f"what answers at {place} is no Penstock"))
        return
    for finding in checkup.of_readyz(answer.status, told):
        tell(finding)


def _is_local(url: str) -> bool:
    """Whether what goes there stays on this machine."""
    hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    return all(_is_loopback(host) for host in hosts)


def _is_loopback(place: str) -> bool:
    host = place.rpartition(":")[0] if ":" in place and not place.endswith("]") else place
    return host in ("", "localhost", "[::1]") or host.startswith(("127.", "%2F", "%2f"))


CHECKS: dict[str, Callable[[Case, Tell], Awaitable[None]]] = {
    "settings": _look_at_settings,
    "handlers": _look_at_handlers,
    "postgres": _look_at_postgres,
    "redis": _look_at_redis,
    "broker": _look_at_broker,
    "smtp": _look_at_mail,
    "auth.jwks_url": _look_at_key_set,
    "server": _look_at_server,
}
LOOKS: dict[str, Look] = {
    "postgres.version": _state,
    "postgres.connections": _room,
    "postgres.schema": _schema,
    "postgres.transactions": _held,
    "postgres.bloat": _tables,
    "postgres.clock": _clock,
    "postgres.disk": _disk,
    "work": _work,
}
