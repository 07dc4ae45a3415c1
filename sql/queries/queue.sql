-- Of the batches of a crawl. Download and score workers run the same statements with the states of their stage:
-- `waiting` for a worker, `held` by one, and `finished`.
--
-- In a race (015_races.sql) a second worker, with a token of its own, is at work on a batch that is held.

-- name: note_contact
select note_queue_contact(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))

-- name: park_exhausted
update batch
set state = 'parked', lease_owner = null, race_owner = null, race_expires = null, updated_at = now(),
    stats = case when %(held)s::text = 'downloading' then null else stats end,
    error = coalesce(error, 'its worker stopped sending heartbeats on every attempt')
from queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
where crawl_no = %(crawl_no)s and state = %(held)s::batch_state and lease_expires < now()
  and attempts >= %(max_attempts)s and (race_expires is null or race_expires < now())
  and not (lease_expires between silent_from and silent_until and (outages < 10 or now() < silent_until))

-- name: claim
-- A batch whose worker was lost goes before new ones: a run may be waiting for it alone. If its lease ended in an outage
-- of the database (011_outages.sql), its worker has some time to extend it, and then it costs no attempt.
with lost as materialized (
    select batch, (lease_expires between silent_from and silent_until and outages < 10)::integer as by_outage
    from batch, queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
    where crawl_no = %(crawl_no)s and state = %(held)s::batch_state and lease_expires < now()
      and (race_expires is null or race_expires < now())
      and not (lease_expires between silent_from and silent_until and now() < silent_until)
    order by lease_expires
    limit 1
    for update of batch skip locked
), waiting as (
    select batch, 0 as by_outage from batch
    where crawl_no = %(crawl_no)s and state = %(waiting)s::batch_state
    order by batch
    limit 1
    for update skip locked
), open as materialized (
    select * from lost union all select * from waiting limit 1
)
update batch
set state = %(held)s::batch_state, token = greatest(token, race_token) + 1, attempts = attempts + 1 - by_outage,
    outages = outages + by_outage, lease_owner = %(owner)s, lease_expires = now() + make_interval(secs => %(lease_s)s),
    race_owner = null, race_expires = null, updated_at = now(), claimed_at = now()
from open
where batch.batch = open.batch
returning batch.batch, token, file

-- name: claim_one
-- To be downloaded, whatever its state, unless a worker of either stage holds it. Also returns what it was before; one
-- whose worker was lost waits for another one.
with open as materialized (
    select batch, attempts as attempts_before, updated_at as since,
           case state when 'downloading' then 'ready' when 'scoring' then 'downloaded' else state::text end as state_before,
           case when state in ('ready', 'downloading') or state = 'parked' and stats is null then attempts else 0 end as attempts,
           (state in ('downloading', 'scoring') and lease_expires between silent_from and silent_until and outages < 10)::integer
           as by_outage
    from batch, queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
    where batch = %(batch)s and crawl_no = %(crawl_no)s
      and (state not in ('downloading', 'scoring')
           or lease_expires < now() and (race_expires is null or race_expires < now())
              and not (lease_expires between silent_from and silent_until and now() < silent_until))
    for update of batch
)
update batch
set state = 'downloading', token = greatest(token, race_token) + 1, attempts = open.attempts + 1 - by_outage,
    outages = outages + by_outage, lease_owner = %(owner)s, lease_expires = now() + make_interval(secs => %(lease_s)s),
    race_owner = null, race_expires = null, updated_at = now(), claimed_at = now()
from open
where batch.batch = open.batch
returning batch.batch, token, file, state_before, attempts_before, since

-- name: race
-- The batch that another worker has held the longest, if it is much longer than the latest ones took, and than `least_s`.
with open as materialized (
    select batch from batch
    where crawl_no = %(crawl_no)s and state = %(held)s::batch_state and lease_expires > now() and lease_owner <> %(owner)s
      and (race_expires is null or race_expires < now())
      and greatest(claimed_at, race_began) < now() - make_interval(secs => (
          select greatest(%(least_s)s, %(times_usual)s * percentile_cont(0.5) within group (order by ms) / 1000) from (
              (select download_ms as ms from batch
               where crawl_no = %(crawl_no)s and downloaded_at is not null and %(held)s::text = 'downloading'
               order by downloaded_at desc limit 100)
              union all
              (select score_ms from batch
               where crawl_no = %(crawl_no)s and state = 'scored' and %(held)s::text = 'scoring'
               order by scored_at desc limit 100)) as latest
          having count(ms) > 0))
    order by claimed_at
    limit 1
    for update of batch skip locked
)
update batch
set race_owner = %(owner)s, race_token = greatest(token, race_token) + 1, race_began = now(),
    race_expires = now() + make_interval(secs => %(lease_s)s)
from open
where batch.batch = open.batch
returning batch.batch, race_token, file

-- name: claimed_unseen
-- A claim whose answer was lost with the connection.
select batch, own_token, file
from batch cross join lateral (select case when lease_owner = %(owner)s then token else race_token end as own_token) as own
where crawl_no = %(crawl_no)s and state = %(held)s::batch_state and %(owner)s in (lease_owner, race_owner)
  and (batch, own_token) not in (select * from unnest(%(batches)s::bigint[], %(tokens)s::bigint[]))
order by batch
limit 1

-- name: heartbeat
update batch set lease_expires = now() + make_interval(secs => %(lease_s)s)
where batch = %(batch)s and token = %(token)s and state = %(held)s::batch_state

-- name: race_heartbeat
-- Of the second worker in a race. If the first one is lost, the batch is its own.
with race as materialized (
    select batch, lease_expires < now()
           and not (lease_expires between silent_from and silent_until and now() < silent_until) as is_over
    from batch, queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
    where batch = %(batch)s and race_token = %(token)s and race_owner is not null and state = %(held)s::batch_state
    for update of batch
)
update batch
set token = case when is_over then race_token else token end,
    lease_owner = case when is_over then race_owner else lease_owner end,
    lease_expires = case when is_over then now() + make_interval(secs => %(lease_s)s) else lease_expires end,
    claimed_at = case when is_over then race_began else claimed_at end,
    race_owner = case when not is_over then race_owner end,
    race_expires = case when not is_over then now() + make_interval(secs => %(lease_s)s) end
from race
where batch.batch = race.batch

-- name: hold
-- Before a file is written. Of two workers in a race, the first one to come here has the batch, and the other one has lost it.
update batch
set token = %(token)s, lease_owner = case when token = %(token)s then lease_owner else race_owner end,
    lease_expires = now() + make_interval(secs => %(lease_s)s),
    claimed_at = case when token = %(token)s then claimed_at else race_began end,
    race_owner = null, race_expires = null, race_began = now()
where batch = %(batch)s and state = %(held)s::batch_state
  and (token = %(token)s or race_token = %(token)s and race_owner is not null)

-- name: complete
update batch
set state = 'downloaded', stats = %(stats)s, score_stats = null, raw_deleted = false, download_attempts = attempts,
    attempts = 0, token = %(token)s, claimed_at = case when token = %(token)s then claimed_at else race_began end,
    lease_owner = null, race_owner = null, race_expires = null, error = null, updated_at = now()
where batch = %(batch)s and state = 'downloading' and (token = %(token)s or race_token = %(token)s and race_owner is not null)

-- name: complete_score
update batch
set state = 'scored', score_stats = %(stats)s, token = %(token)s,
    claimed_at = case when token = %(token)s then claimed_at else race_began end,
    lease_owner = null, race_owner = null, race_expires = null, error = null, updated_at = now()
where batch = %(batch)s and state = 'scoring' and (token = %(token)s or race_token = %(token)s and race_owner is not null)

-- name: is_completed
select 1 from batch where batch = %(batch)s and token = %(token)s and state = %(finished)s::batch_state

-- name: fail
-- Not while another worker races for the batch: what one could not do says nothing about the other.
update batch
set state = case when attempts >= %(max_attempts)s then 'parked' else %(waiting)s::text end::batch_state,
    stats = case when %(held)s::text = 'downloading' and attempts >= %(max_attempts)s then null else stats end,
    error = %(error)s, lease_owner = null, race_owner = null, race_expires = null, updated_at = now()
where batch = %(batch)s and token = %(token)s and state = %(held)s::batch_state
  and (race_expires is null or race_expires <= now())

-- name: release
-- Of a batch for which there is a race, the second worker goes on: it has the batch now.
update batch
set state = case when race_expires > now() then state else %(waiting)s::batch_state end,
    attempts = case when race_expires > now() then attempts else attempts - 1 end,
    token = case when race_expires > now() then race_token else token end,
    lease_owner = case when race_expires > now() then race_owner end,
    lease_expires = greatest(lease_expires, race_expires),
    claimed_at = case when race_expires > now() then race_began else claimed_at end,
    race_owner = null, race_expires = null, updated_at = now()
where crawl_no = %(crawl_no)s and state = %(held)s::batch_state
  and (batch = %(batch)s and token = %(token)s or %(batch)s::bigint is null and lease_owner = %(owner)s)

-- name: put_back
-- Only the lease ends: results and error are those from before the claim. Not while another worker races for the batch.
update batch
set state = %(state)s::batch_state, attempts = %(attempts)s, updated_at = %(since)s,
    lease_owner = null, race_owner = null, race_expires = null
where batch = %(batch)s and token = %(token)s and state = %(held)s::batch_state
  and (race_expires is null or race_expires <= now())

-- name: leave_race
update batch
set race_owner = null, race_expires = null
where crawl_no = %(crawl_no)s and state = %(held)s::batch_state and race_owner is not null
  and (batch = %(batch)s and race_token = %(token)s or %(batch)s::bigint is null and race_owner = %(owner)s)

-- name: roll_up
select roll_up_batches()

-- name: counts
select coalesce(batches - done - failed - downloading, 0), downloading,
       coalesce(done - scored - score_failed - scoring, 0), scoring, coalesce(scored, 0), coalesce(failed + score_failed, 0)
from (
    select sum(batches)::bigint as batches, sum(done)::bigint as done, sum(failed)::bigint as failed,
           sum(scored)::bigint as scored, sum(score_failed)::bigint as score_failed
    from batch_count where crawl_no = %(crawl_no)s
) as counted,
(select count(*) as downloading from batch where crawl_no = %(crawl_no)s and state = 'downloading') as downloads,
(select count(*) as scoring from batch where crawl_no = %(crawl_no)s and state = 'scoring') as scores

-- name: failed
-- Parked in the stage of the worker.
select batch, error from batch
where crawl_no = %(crawl_no)s and state = 'parked' and (stats is null) = (%(held)s::text = 'downloading')
order by batch limit %(rows)s

-- name: parked
select batch, coalesce(error, '') from batch
where crawl_no = %(crawl_no)s and state = 'parked' and batch > %(after)s
  and (%(batch)s::bigint is null or batch = %(batch)s)
order by batch
limit %(page)s

-- name: requeue
-- Back to the stage that failed.
update batch
set state = case when stats is null then 'ready' else 'downloaded' end::batch_state, attempts = 0, outages = 0, error = null,
    lease_owner = null, updated_at = now()
where crawl_no = %(crawl_no)s and state = 'parked' and batch = any (%(batches)s)
returning batch

-- name: next_expiry
-- Seconds until the next lease may be taken over.
select extract(epoch from min(greatest(case when lease_expires between silent_from and silent_until
                                            then silent_until else lease_expires end, race_expires)) - now())::float8
from batch, queue_silence(%(crawl_no)s::smallint, make_interval(secs => %(lease_s)s))
where crawl_no = %(crawl_no)s and state = %(held)s::batch_state

-- name: work_left
-- Whether a batch of the stage or of the one before it is not finished, and whether a worker holds one at this moment.
select exists (select from batch where crawl_no = %(crawl_no)s and state = 'ready')
       or exists (select from batch where crawl_no = %(crawl_no)s and state = 'downloading')
       or exists (select from batch where crawl_no = %(crawl_no)s and state = 'downloaded')
       or exists (select from batch where crawl_no = %(crawl_no)s and state = 'scoring'),
       exists (select from batch where crawl_no = %(crawl_no)s and state = 'downloading' and lease_expires > now())
       or exists (select from batch where crawl_no = %(crawl_no)s and state = 'scoring' and lease_expires > now())

-- name: scored
select batch, score_fingerprint from batch
where crawl_no = %(crawl_no)s and state = 'scored' and batch > %(after)s
order by batch
limit %(rows)s

-- name: not_scored
-- Batches that are parked, with the stage that failed: those that a record of the stage names.
select batch, stats is null, coalesce(error, '') from batch
where crawl_no = %(crawl_no)s and state = 'parked'
order by batch

-- name: score_totals
select coalesce(sum(samples), 0)::bigint, coalesce(sum(samples_kept), 0)::bigint, sum_counts(score_dropped),
       coalesce(sum(raw_deleted), 0)::bigint
from (select * from batch_thousand union all select * from batch_change) as counts
where crawl_no = %(crawl_no)s

-- name: lock_scored
-- Batches that are still scored under these tokens; while they are locked, no worker can take them to download them again.
select batch
from batch join unnest(%(batches)s::bigint[], %(tokens)s::bigint[]) as claimed (number, token_then)
     on batch = number and token = token_then
where state = 'scored' and not raw_deleted
order by batch
for update of batch skip locked

-- name: note_raw_deleted
update batch set raw_deleted = true where batch = any (%(batches)s::bigint[])

-- name: raw_shard_bounds
select min(batch), max(batch) from batch where crawl_no = %(crawl_no)s and state = 'scored' and not raw_deleted

-- name: with_raw_shard
select batch, token, file from batch
where crawl_no = %(crawl_no)s and state = 'scored' and not raw_deleted and batch > %(after)s
order by batch
limit %(rows)s

-- name: scored_otherwise
-- Batches that another model or other settings scored, and how many of them have no raw shard any more.
select count(*), count(*) filter (where raw_deleted) from batch
where crawl_no = %(crawl_no)s and state = 'scored' and (scored_by < %(scored_by)s or scored_by > %(scored_by)s)

-- name: score_again
update batch
set state = 'downloaded', score_stats = null, token = greatest(token, race_token) + 1, attempts = 0, outages = 0,
    lease_owner = null, updated_at = now()
where batch = any (
    array(select batch from batch
          where crawl_no = %(crawl_no)s and state = 'scored' and not raw_deleted and scored_by < %(scored_by)s
          limit %(rows)s for update skip locked)
    || array(select batch from batch
             where crawl_no = %(crawl_no)s and state = 'scored' and not raw_deleted and scored_by > %(scored_by)s
             limit %(rows)s for update skip locked))
