-- What `penstock migrate --grant-to` has to know of the database.

-- name: is_as_owner
-- Whether a role may do anyway what we may; no row when there is no such role.
SELECT r.rolsuper OR pg_has_role(r.oid, current_user, 'MEMBER') FROM pg_roles r WHERE r.rolname = $1;

-- name: own_schema
SELECT oid, nspname FROM pg_namespace WHERE nspname = current_schema();

-- name: tables_there
-- Those of the names $1 that are tables of schema $2: a migration may have taken one away since another made it.
SELECT relname FROM pg_class
WHERE relname = ANY($1::text[]) AND relnamespace = $2 AND relkind IN ('r', 'p')
ORDER BY relname;

-- name: columns_to_fill
-- All columns of a table but its time, which is Postgres' to give.
SELECT attname FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'at'
ORDER BY attnum;

-- name: signatures
SELECT oid::regprocedure::text FROM pg_proc WHERE proname = $1 AND pronamespace = $2;

-- name: may_create
SELECT has_schema_privilege($1, $2::oid, 'CREATE');
