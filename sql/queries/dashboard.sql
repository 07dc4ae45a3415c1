-- name: batches
select batch, state::text, coalesce(state = 'leased' and lease_expires < now(), false),
       case when state = 'done' then extract(epoch from updated_at - claimed_at)::float8 end
from batch
where crawl_no = (select crawl_no from crawl where crawl = %(crawl)s) and batch between %(first)s and %(last)s
order by batch
limit 2000

-- name: batch
select state::text, attempts, pairs, coalesce(lease_owner, ''), coalesce(error, ''),
       extract(epoch from now() - claimed_at)::float8,
       case when state = 'done' then extract(epoch from updated_at - claimed_at)::float8 end
from batch join crawl using (crawl_no)
where crawl = %(crawl)s and batch = %(batch)s
