-- name: park_exhausted
update batch
set state = 'failed', lease_owner = null, updated_at = now(),
    error = coalesce(error, 'its worker stopped sending heartbeats on every attempt')
where crawl_no = %(crawl_no)s and state = 'leased' and lease_expires < now()
  and attempts >= %(max_attempts)s

-- name: claim
-- A batch whose worker was lost goes before new ones: a run may be waiting for it alone.
update batch
set state = 'leased', token = token + 1, attempts = attempts + 1, lease_owner = %(owner)s,
    lease_expires = now() + make_interval(secs => %(lease_s)s), updated_at = now(), claimed_at = now()
where batch = (
    select batch from (
        select * from (
            select batch from batch
            where crawl_no = %(crawl_no)s and state = 'leased' and lease_expires < now()
            order by lease_expires
            limit 1
            for update skip locked) as lost
        union all
        select * from (
            select batch from batch
            where crawl_no = %(crawl_no)s and state = 'ready'
            order by batch
            limit 1
            for update skip locked) as ready
    ) as open
    limit 1)
returning batch, token, file

-- name: claim_one
update batch
set state = 'leased', token = token + 1, attempts = attempts + 1, lease_owner = %(owner)s,
    lease_expires = now() + make_interval(secs => %(lease_s)s), updated_at = now(), claimed_at = now()
where batch = %(batch)s and crawl_no = %(crawl_no)s
  and (state <> 'leased' or lease_expires < now())
returning batch, token, file

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

-- name: counts
select state::text, count(*), sum(pairs) from batch where crawl_no = %(crawl_no)s group by state

-- name: failed
select batch, error from batch where crawl_no = %(crawl_no)s and state = 'failed' order by batch

-- name: parked
select batch, coalesce(error, '') from batch
where crawl_no = %(crawl_no)s and state = 'failed' and batch > %(after)s
  and (%(batch)s::bigint is null or batch = %(batch)s)
order by batch
limit %(page)s

-- name: requeue
update batch
set state = 'ready', attempts = 0, error = null, lease_owner = null, updated_at = now()
where crawl_no = %(crawl_no)s and state = 'failed' and batch = any (%(batches)s)
returning batch

-- name: next_expiry
select extract(epoch from min(lease_expires) - now())::float8 from batch
where crawl_no = %(crawl_no)s and state = 'leased'
