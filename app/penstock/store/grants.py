"""What a replica needs to do in the database, for a role that isn't the owner of the tables.

In: the owner's DSN, who migrates, and the name of the role that replicas log in as. Out: rights on
the tables that the migrations made and the catalogue has, by name (others may lie in the same
schema); no DDL, no TRUNCATE, and of the audit log reading and
adding only. Safe to repeat, which a migration that adds a table calls for. All in one transaction:
if we die here, nothing has changed.
"""

import re
from collections.abc import Iterator, Sequence

import asyncpg

from penstock import places
from penstock.domain.errors import WrongSetting
from penstock.store import queries
from penstock.store.migrate import files
from penstock.store.postgres import translated

_MADE = re.compile(r"^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
_LOG = "audit_log"  # added to and read; who could give a time could forge one
_HISTORY = "schema_migrations"  # read
_FUNCTIONS = ("job_unique_id", "audit_log_prune")


async def grant(dsn: str, role: str) -> str | None:
    """Grants `role` what a replica needs, and takes the rest of the tables' rights from it. What is
    left for the operator to do, or None. WrongSetting where there is no such role, or it may do
    what the owner may anyway."""
    with translated(unknown=False):
        con = await asyncpg.connect(dsn, timeout=5)
        try:
            async with con.transaction():
                return await _grant(con, role)
        finally:
            await con.close(timeout=5)


async def _grant(con: "asyncpg.Connection[asyncpg.Record]", role: str) -> str | None:
    sql = queries.load()
    is_owner = await con.fetchval(sql["is_as_owner"], role)
    if is_owner is None:
        raise WrongSetting(f"there is no role {role!r}: CREATE ROLE {_quoted(role)} LOGIN first")
    if is_owner:
        raise WrongSetting(
            f"the role {role!r} may do all that the owner of the tables may, so rights mean "
            "nothing to it: take another one"
        )
    schema, name = (await con.fetch(sql["own_schema"]))[0]
    columns = ", ".join(row[0] for row in await con.fetch(sql["columns_to_fill"], _LOG))
    tables = [row[0] for row in await con.fetch(sql["tables_there"], _made(), schema)]
    for statement in _rights(_quoted(role), _quoted(name), tables, columns):
        await con.execute(statement)
    for function in _FUNCTIONS:
        for (signature,) in await con.fetch(sql["signatures"], function, schema):
            await con.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {_quoted(role)}")
    if await con.fetchval(sql["may_create"], role, schema):
        return (
            f"{role} may still create tables: REVOKE CREATE ON SCHEMA {_quoted(name)} FROM PUBLIC"
        )
    return None


def _made() -> list[str]:
    """The tables that any migration has made, but those that have rights of their own."""
    made = {name for one in files(places.migrations_dir()) for name in _MADE.findall(one.sql)}
    return sorted(made - {_LOG, _HISTORY})


def _rights(role: str, schema: str, ours: Sequence[str], columns: str) -> Iterator[str]:
    tables = ", ".join(map(_quoted, ours))
    yield f"GRANT USAGE ON SCHEMA {schema} TO {role}"
    yield f"REVOKE ALL ON {tables}, {_LOG}, {_HISTORY} FROM {role}, PUBLIC"
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}"
    yield f"GRANT SELECT, INSERT ({columns}) ON {_LOG} TO {role}"
    yield f"GRANT SELECT ON {_HISTORY} TO {role}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
