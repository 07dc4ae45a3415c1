-- name: note_contact
select note_queue_contact(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))

-- name: park_exhausted
update batch
set state = 'failed', lease_owner = null, updated_at = now(),
    error = coalesce(error, 'its worker stopped sending heartbeats on every attempt')
from queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
where crawl_no = %(crawl_no)s and state = 'leased' and lease_expires < now()
  and attempts >= %(max_attempts)s
  and not (lease_expires between silent_from and silent_until and (outages < 10 or now() < silent_until))

-- name: claim
-- A batch whose worker was lost goes before new ones: a run may be waiting for it alone. If its lease ended in an outage
-- of the database (011_outages.sql), its worker has some time to extend it, and then it costs no attempt.
with lost as materialized (
    select batch, (lease_expires between silent_from and silent_until and outages < 10)::integer as by_outage
    from batch, queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
    where crawl_no = %(crawl_no)s and state = 'leased' and lease_expires < now()
      and not (lease_expires between silent_from and silent_until and now() < silent_until)
    order by lease_expires
    limit 1
    for update of batch skip locked
), ready as (
    select batch, 0 as by_outage from batch
    where crawl_no = %(crawl_no)s and state = 'ready'
    order by batch
    limit 1
    for update skip locked
), open as materialized (
    select * from lost union all select * from ready limit 1
)
update batch
set state = 'leased', token = token + 1, attempts = attempts + 1 - by_outage, outages = outages + by_outage,
    lease_owner = %(owner)s, lease_expires = now() + make_interval(secs => %(lease_s)s), updated_at = now(),
    claimed_at = now()
from open
where batch.batch = open.batch
returning batch.batch, token, file

-- name: claim_one
with open as materialized (
    select batch,
           (state = 'leased' and lease_expires between silent_from and silent_until and outages < 10)::integer
           as by_outage
    from batch, queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
    where batch = %(batch)s and crawl_no = %(crawl_no)s
      and (state <> 'leased'
           or lease_expires < now()
              and not (lease_expires between silent_from and silent_until and now() < silent_until))
    for update of batch
)
update batch
set state = 'leased', token = token + 1, attempts = attempts + 1 - by_outage, outages = outages + by_outage,
    lease_owner = %(owner)s, lease_expires = now() + make_interval(secs => %(lease_s)s), updated_at = now(),
    claimed_at = now()
from open
where batch.batch = open.batch
returning batch.batch, token, file

-- name: claimed_unseen
-- A claim whose answer was lost with the connection.
select batch, token, file from batch
where crawl_no = %(crawl_no)s and state = 'leased' and lease_owner = %(owner)s and batch <> all (%(held)s)
order by batch
limit 1

-- name: heartbeat
update batch set lease_expires = now() + make_interval(secs => %(lease_s)s)
where batch = %(batch)s and token = %(token)s and state = 'leased'

-- name: complete
update batch
set state = 'done', stats = %(stats)s, lease_owner = null, error = null, updated_at = now()
where batch = %(batch)s and token = %(token)s and state = 'leased'

-- name: is_completed
select 1 from batch where batch = %(batch)s and token = %(token)s and state = 'done'

-- name: fail
update batch
set state = case when attempts >= %(max_attempts)s then 'failed' else 'ready' end::batch_state,
    error = %(error)s, lease_owner = null, updated_at = now()
where batch = %(batch)s and token = %(token)s and state = 'leased'

-- name: release
update batch
set state = 'ready', attempts = attempts - 1, lease_owner = null, updated_at = now()
where batch = %(batch)s and token = %(token)s and state = 'leased'

-- name: release_all
update batch
set state = 'ready', attempts = attempts - 1, lease_owner = null, updated_at = now()
where crawl_no = %(crawl_no)s and lease_owner = %(owner)s and state = 'leased'

-- name: roll_up
select roll_up_batches()

-- name: counts
select coalesce(batches - done - failed - leased, 0), leased, coalesce(done, 0), coalesce(failed, 0)
from (
    select sum(batches)::bigint as batches, sum(done)::bigint as done, sum(failed)::bigint as failed
    from batch_count where crawl_no = %(crawl_no)s
) as counted,
(select count(*) as leased from batch where crawl_no = %(crawl_no)s and state = 'leased') as leases

-- name: failed
select batch, error from batch where crawl_no = %(crawl_no)s and state = 'failed' order by batch limit %(rows)s

-- name: parked
select batch, coalesce(error, '') from batch
where crawl_no = %(crawl_no)s and state = 'failed' and batch > %(after)s
  and (%(batch)s::bigint is null or batch = %(batch)s)
order by batch
limit %(page)s

-- name: requeue
update batch
set state = 'ready', attempts = 0, outages = 0, error = null, lease_owner = null, updated_at = now()
where crawl_no = %(crawl_no)s and state = 'failed' and batch = any (%(batches)s)
returning batch

-- name: next_expiry
-- Seconds until the next lease may be taken over.
select extract(epoch from min(case when lease_expires between silent_from and silent_until
                                   then silent_until else lease_expires end) - now())::float8
from batch, queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
where crawl_no = %(crawl_no)s and state = 'leased'
