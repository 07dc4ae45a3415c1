-- name: loads
select crawl, partitions, planned, pairs_kept, partitions_per_hour, last_loaded_at from load_progress
order by crawl

-- name: queues
select crawl, batches, ready, downloading, silent, done, failed, pairs, pairs_done, pairs_left, images, workers,
       pairs_per_hour, extract(epoch from time_left)::float8, extract(epoch from oldest_lease)::float8,
       to_score, scoring, silent_scorers, scored, score_failed, scorers, samples_per_hour,
       extract(epoch from score_time_left)::float8, raw_deleted
from queue_progress
order by crawl

-- name: oldest_leases
select batch, attempts, lease_owner,
       extract(epoch from held_for)::float8, extract(epoch from left_for)::float8
from lease where crawl = %(crawl)s
order by held_for desc nulls last
limit 3

-- name: failed_batches
select batch, attempts, error from failed_batch where crawl = %(crawl)s order by batch limit %(rows)s

-- name: causes
-- The most frequent first. `reason`: the whole error of the latest batch with this cause.
select cause, frequent.batches, last_at,
       coalesce((select error from batch where batch = latest.numbers[1]), '') as reason, numbers, times
from (
    select crawl_no, cause, count(*) as batches, max(updated_at) as last_at
    from batch where state = 'parked' and crawl_no = (select crawl_no from crawl where crawl = %(crawl)s)
    group by crawl_no, cause
    order by count(*) desc, cause
    limit %(rows)s
) as frequent
cross join lateral (
    select array_agg(batch order by updated_at desc, batch) as numbers,
           array_agg(updated_at order by updated_at desc, batch) as times
    from (
        select batch, updated_at from batch
        where state = 'parked' and batch.crawl_no = frequent.crawl_no and batch.cause = frequent.cause
        order by updated_at desc, batch
        limit %(units)s
    ) as one
) as latest
order by frequent.batches desc, cause

-- name: plan_windows
-- Windows of the open round of planning: done, and in total.
select count(*) filter (where plan_window.done), count(*)
from plan_window join plan_round using (crawl_no, round) join crawl using (crawl_no)
where crawl = %(crawl)s and not plan_round.done

-- name: downloads
-- Counters of a crawl's batches: with pairs of all of them, and what those that are done have.
select coalesce(sum(batches), 0)::bigint, coalesce(sum(pairs), 0)::bigint, coalesce(sum(done), 0)::bigint,
       coalesce(sum(pairs_done), 0)::bigint, coalesce(sum(images), 0)::bigint, coalesce(sum(bytes), 0)::bigint,
       coalesce(sum(held_ms), 0)::bigint, sum_counts(dropped),
       coalesce(sum(scored), 0)::bigint, coalesce(sum(samples), 0)::bigint, coalesce(sum(samples_kept), 0)::bigint,
       coalesce(sum(score_ms), 0)::bigint, sum_counts(score_dropped)
from (select * from batch_thousand union all select * from batch_change) as counts
where crawl_no = (select crawl_no from crawl where crawl = %(crawl)s)

-- name: partitions
-- In the order of their numbers: whether it is being loaded (or was interrupted), whether it is planned, whether a round of
-- planning that is not done has it, and counters.
select partition, fingerprint = '', planned, planning, pairs_in, pairs_kept, dropped, parsed
from partition
where crawl_no = (select crawl_no from crawl where crawl = %(crawl)s)
order by partition

-- name: thousands
select thousand, range.first, range.last, batches, done, failed + score_failed, coalesce(leased, 0), coalesce(silent, 0), scored
from batch_count
join crawl using (crawl_no)
left join (
    select crawl_no, batch / 1000 as thousand, count(*) as leased, count(*) filter (where lease_expires < now()) as silent
    from batch where state in ('downloading', 'scoring')
    group by crawl_no, batch / 1000
) as leases using (crawl_no, thousand)
cross join lateral (
    select min(batch) as first, max(batch) as last from batch
    where batch.batch between thousand * 1000 and thousand * 1000 + 999 and batch.crawl_no = batch_count.crawl_no
) as range
where crawl = %(crawl)s
order by thousand
