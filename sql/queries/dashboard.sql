-- name: batches
-- Those in some thousands of a crawl: the only index with all batches of a crawl is that of their numbers.
select batch, state::text, coalesce(state in ('downloading', 'scoring') and lease_expires < now(), false),
       download_ms / 1000.0::float8
from crawl
join batch_count using (crawl_no)
cross join lateral (
    select * from batch
    where batch between thousand * 1000 and thousand * 1000 + 999 and batch.crawl_no = crawl.crawl_no
) as one
where crawl = %(crawl)s and thousand between %(first)s and %(last)s
order by batch
limit 2000

-- name: batch
select state::text, attempts, pairs, coalesce(lease_owner, ''), coalesce(error, ''),
       extract(epoch from now() - claimed_at)::float8,
       download_ms / 1000.0::float8
from batch join crawl using (crawl_no)
where crawl = %(crawl)s and batch = %(batch)s

-- name: first_scored
select batch, (select coalesce(sum(scored), 0)::bigint from batch_count where batch_count.crawl_no = crawl.crawl_no)
from crawl join batch using (crawl_no)
where crawl = %(crawl)s and state = 'scored'
order by scored_at, batch
limit %(rows)s
