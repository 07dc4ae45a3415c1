-- name: partitions
-- A partition without a fingerprint is being loaded, or its load was interrupted.
select partition, fingerprint = '', planned
from partition join crawl using (crawl_no)
where crawl = %(crawl)s
order by partition

-- name: batches
select batch, state::text, coalesce(state = 'leased' and lease_expires < now(), false),
       case when state = 'done' then extract(epoch from updated_at - claimed_at)::float8 end
from batch join crawl using (crawl_no)
where crawl = %(crawl)s
order by batch

-- name: batch
select state::text, attempts, pairs, coalesce(lease_owner, ''), coalesce(error, ''),
       extract(epoch from now() - claimed_at)::float8,
       case when state = 'done' then extract(epoch from updated_at - claimed_at)::float8 end
from batch join crawl using (crawl_no)
where crawl = %(crawl)s and batch = %(batch)s

-- name: parked
-- The latest first; a page groups them by cause.
select batch, attempts, coalesce(error, ''), updated_at
from batch join crawl using (crawl_no)
where crawl = %(crawl)s and state = 'failed'
order by updated_at desc, batch
limit 10000
