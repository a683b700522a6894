"""One role owns the tables and migrates, another runs the replicas and can't change the log."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from penstock import settings
from penstock.domain.audit_log import Action, Entry
from penstock.domain.errors import WrongSetting
from penstock.server import running
from penstock.store import rows
from penstock.store.grants import grant
from penstock.store.migrate import migrate
from penstock.store.queries import load
from tests.cli.command import penstock
from tests.journeys.test_audit_log import every_change_leaves_an_entry
from tests.support.api import Api
from tests.support.servers import Servers

_numbers = itertools.count(1)
DENIED = asyncpg.InsufficientPrivilegeError


@dataclass(frozen=True)
class Roles:
    """DSNs of the same database."""

    owner: str
    app: str
    name: str  # of the app's role


@pytest.fixture
async def roles(servers: Servers) -> AsyncIterator[Roles]:
    n = next(_numbers)
    owner, app, database = f"owner_{n}", f'the "app" {n}', f"of_two_{n}"
    quoted = '"' + app.replace('"', '""') + '"'
    root = await asyncpg.connect(servers.postgres.dsn)
    for role in (owner, quoted):
        await root.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    await root.execute(f"CREATE DATABASE {database} OWNER {owner}")
    dsn = servers.postgres.dsn_of(database)
    scheme, _, place = dsn.partition("://")
    place = place.rpartition("@")[2]
    try:
        yield Roles(
            f"{scheme}://{owner}:secret@{place}",
            f"{scheme}://the%20%22app%22%20{n}:secret@{place}",
            app,
        )
    finally:
        await root.execute(f"DROP DATABASE {database} WITH (FORCE)")
        for role in (owner, quoted):
            await root.execute(f"DROP ROLE {role}")
        await root.close()


async def test_a_replica_runs_as_a_role_that_can_only_add_to_the_log(
    roles: Roles, replica_settings: settings.Settings
) -> None:
    await migrate(roles.owner)
    for _ in range(2):
        assert await grant(roles.owner, roles.name) is None
    postgres = replica_settings.postgres.model_dump() | {"dsn": roles.app}
    changed = replica_settings.model_copy(
        update={"postgres": settings.Postgres.model_validate(postgres)}
    )
    async with running(changed) as replica, Api(replica.url) as api:
        await every_change_leaves_an_entry(replica, api, roles.owner)
        await replica.engine.pruner.step()
        await replica.engine.auditor.step()
    con = await asyncpg.connect(roles.app)
    for statement in (
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "DROP TABLE audit_log",
        "DROP TRIGGER audit_log_stays ON audit_log",
        "ALTER FUNCTION audit_log_refuse RENAME TO audit_log_allow",
        "INSERT INTO audit_log (audit_id, at) VALUES (gen_random_uuid(), 'epoch')",
        "CREATE TABLE mine (n int)",
        "TRUNCATE jobs",
        "ALTER TABLE jobs ADD COLUMN mine int",
        "DELETE FROM schema_migrations",
    ):
        with pytest.raises(DENIED):
            await con.execute(statement)
    # A table of its own in the place of ours must not be what the owner's function empties.
    await con.execute("CREATE TEMP TABLE audit_log (audit_id uuid, at timestamptz)")
    await con.execute("INSERT INTO audit_log VALUES (gen_random_uuid(), 'epoch')")
    assert await con.fetchval("SELECT audit_log_prune(0, 1000)") == 0
    assert await con.fetchval("SELECT count(*) FROM pg_temp.audit_log") == 1
    await con.close()


async def test_a_role_gets_rights_on_every_table_of_ours_and_on_no_other(roles: Roles) -> None:
    await migrate(roles.owner)
    con = await asyncpg.connect(roles.owner)
    await con.execute("CREATE TABLE somebody_elses (n int)")
    await con.execute(f'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO "{_doubled(roles.name)}"')
    await grant(roles.owner, roles.name)
    found = await con.fetch(
        """
        SELECT relname, array_agg(p ORDER BY p) FILTER (WHERE has_table_privilege($1, c.oid, p))
        FROM pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,TRIGGER}'::text[]) p
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' GROUP BY relname
        """,
        roles.name,
    )
    await con.close()
    rights = {row[0]: row[1] for row in found}
    assert rights.pop("audit_log") == ["SELECT"]
    assert rights.pop("schema_migrations") == ["SELECT"]
    assert rights.pop("somebody_elses") is None
    assert rights
    assert {tuple(one) for one in rights.values()} == {("DELETE", "INSERT", "SELECT", "UPDATE")}


async def test_a_table_that_a_migration_took_away_again_is_no_obstacle(roles: Roles) -> None:
    await migrate(roles.owner)
    con = await asyncpg.connect(roles.owner)
    await con.execute("DROP TABLE pruned_workflows")
    await grant(roles.owner, roles.name)
    reads = "SELECT has_table_privilege($1, 'jobs', 'SELECT')"
    assert await con.fetchval(reads, roles.name)
    await con.close()


async def test_roles_that_can_be_given_nothing_are_told(roles: Roles) -> None:
    await migrate(roles.owner)
    with pytest.raises(WrongSetting, match="there is no role 'nobody'"):
        await grant(roles.owner, "nobody")
    owner = roles.owner.partition("://")[2].partition(":")[0]
    with pytest.raises(WrongSetting, match="may do all that the owner"):
        await grant(roles.owner, owner)


async def test_the_command_migrates_and_grants_and_says_what_is_left_to_do(roles: Roles) -> None:
    environ = {"PENSTOCK_POSTGRES__DSN": roles.owner}
    done = penstock("migrate", "--grant-to", roles.name, environ=environ)
    assert (done.returncode, done.stdout.split()[0]) == (0, "0001_engine"), done.stderr
    assert done.stderr == f"penstock: {roles.name} has what a replica needs\n"
    con = await asyncpg.connect(roles.owner)
    await con.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    await con.close()
    done = penstock("migrate", "--grant-to", roles.name, environ=environ)
    assert "REVOKE CREATE ON SCHEMA" in done.stderr
    done = penstock("migrate", "--grant-to", "nobody", environ=environ)
    assert done.returncode == 2
    assert "there is no role 'nobody'" in done.stderr
    assert penstock("migrate", "--check", "--grant-to", "x", environ=environ).returncode == 2


async def test_default_privileges_give_no_role_more_of_the_log(roles: Roles) -> None:
    con = await asyncpg.connect(roles.owner)
    app = f'"{_doubled(roles.name)}"'
    await con.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {app}")
    await migrate(roles.owner)
    await con.close()
    con = await asyncpg.connect(roles.app)
    entry = Entry(bytes(16), Action.JOB_CANCEL, "ada")
    await con.execute(load()["add_entries"], *_texts(rows.entries([entry])))
    for statement in ("UPDATE audit_log SET actor = ''", "DELETE FROM audit_log"):
        with pytest.raises(DENIED):
            await con.execute(statement)
    assert await con.fetchval("SELECT audit_log_prune(0, 10)") == 0
    await con.close()


def _doubled(name: str) -> str:
    return name.replace('"', '""')


def _texts(columns: list[list[object]]) -> list[list[object]]:
    """Ids as this session takes them."""
    return [[one.hex() if isinstance(one, bytes) else one for one in column] for column in columns]
