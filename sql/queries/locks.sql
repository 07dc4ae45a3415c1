-- name: hold
-- Only the end of the client ends the transaction that holds a lock: no limit on idling, and the server asks a
-- silent client after 30 s whether it is still there. The process is asked for here: the number that the client got when
-- it connected is one of the pooler's own where there is one.
select pg_backend_pid(),
       set_config('idle_in_transaction_session_timeout', '0', true),
       set_config('tcp_keepalives_idle', '30', true),
       set_config('tcp_keepalives_interval', '10', true),
       set_config('tcp_keepalives_count', '3', true),
       set_config('application_name', %(name)s, true)

-- name: take
select pg_try_advisory_xact_lock(%(kind)s, %(number)s)

-- name: drop_snapshot
-- A statement with parameters goes by the extended protocol, and its portal keeps the snapshot until the next one. One
-- without goes by the simple protocol and leaves nothing.
select

-- name: close_gate
select pg_try_advisory_xact_lock(100 + %(kind)s, %(number)s)

-- name: enter_gate
select pg_try_advisory_xact_lock_shared(100 + %(kind)s, %(number)s)

-- name: is_held
-- Of an advisory lock with two keys, objsubid is 2.
select exists (
    select from pg_locks
    where locktype = 'advisory' and objsubid = 2 and classid = %(kind)s::oid and objid = %(number)s::oid
      and database = (select oid from pg_database where datname = current_database())
      and pid = %(pid)s and mode = 'ExclusiveLock' and granted)

-- name: holders
select coalesce(nullif(application_name, ''), 'a program without a name')
from pg_locks left join pg_stat_activity using (pid)
where locktype = 'advisory' and objsubid = 2 and classid = %(kind)s::oid and objid = %(number)s::oid
  and pg_locks.database = (select oid from pg_database where datname = current_database()) and granted

-- name: take_ranges
-- Row by row until there are enough: a range that is not taken is not tried.
with named as materialized (select set_config('application_name', %(name)s, true))
select range_no from named, unnest(%(ranges)s::integer[]) as range_no
where pg_try_advisory_xact_lock(1, range_no)
limit %(at_most)s

-- name: away
-- Run after the locks are taken, as a separate statement, so that it sees what another transaction recorded before it
-- released them.
select range_no, server_no, moving_to is not null from range_home
where range_no = any (%(ranges)s) and (moving_to is not null or server_no <> (select server_no from this_server))
limit 1

-- name: range_holders
select distinct coalesce(nullif(application_name, ''), 'a program without a name')
from pg_locks left join pg_stat_activity using (pid)
where locktype = 'advisory' and objsubid = 2 and classid = 1 and granted
  and pg_locks.database = (select oid from pg_database where datname = current_database())
