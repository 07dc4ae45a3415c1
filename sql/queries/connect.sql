-- name: limits
-- For this transaction only. A client that disappears loses its locks after idle_s.
select set_config('statement_timeout', %(statement_s)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_s)s, true)

-- name: numbers
select set_config('laion_etl.pair_leaves', %(leaves)s, true),
       set_config('laion_etl.key_ranges', %(key_ranges)s, true)

-- name: create_schema_migration
create table if not exists schema_migration (
    name text primary key,
    applied_at timestamptz not null default now()
)

-- name: migrations
select name from schema_migration order by name
