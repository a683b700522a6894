"""Statements and the parts that they share, as `store/sql/*.sql` holds them."""

import pytest

from penstock.store.queries import load, statements

SHARED = """-- What the file is about.

-- part: newest(table; condition)
-- The newest of a table.
SELECT id FROM @table WHERE @condition id < $1
@limited(10)

-- part: limited(count)
ORDER BY id LIMIT @count

-- name: jobs
-- All jobs.
@newest(jobs;)

-- name: tagged
@newest(jobs; tags && ARRAY[lower($2)] AND)
"""


def test_parts_are_put_in_where_they_are_used() -> None:
    assert dict(statements(SHARED)) == {
        "jobs": "-- All jobs.\nSELECT id FROM jobs WHERE  id < $1\nORDER BY id LIMIT 10",
        "tagged": "SELECT id FROM jobs WHERE tags && ARRAY[lower($2)] AND id < $1\n"
        "ORDER BY id LIMIT 10",
    }


@pytest.mark.parametrize("use", ["@unknown", "@newest(jobs)", "@newest(a; b; c)", "@newest"])
def test_a_use_of_no_part_or_with_other_places_is_a_bug(use: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        statements(f"{SHARED}\n-- name: wrong\n{use}")


def test_nothing_is_left_of_parts_in_what_postgres_gets() -> None:
    assert not [name for name, sql in load().items() if "@" in sql.replace("<@", "")]
