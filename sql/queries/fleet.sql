-- The queue as the fleet of a consumer (download, score) needs it: KEDA runs open_*, Airflow waits by state_*.

-- name: open_download
-- Batches that are ready or being downloaded: those at work count, or KEDA would end their workers.
select coalesce(sum(batches - done - failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s

-- name: state_download
-- Batches that are open, of these at work, finished and parked; the same columns for each consumer.
select coalesce(sum(batches - done - failed), 0)::bigint,
       (select count(*) from batch join crawl using (crawl_no) where crawl = %(crawl)s and state = 'leased'),
       coalesce(sum(done), 0)::bigint, coalesce(sum(failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s

-- name: open_score
select count(*)
from batch join crawl using (crawl_no)
where crawl = %(crawl)s and state::text in ('downloaded', 'scoring')

-- name: state_score
select count(*) filter (where state::text in ('downloaded', 'scoring')),
       count(*) filter (where state::text = 'scoring'),
       count(*) filter (where state::text = 'scored'), count(*) filter (where state::text = 'parked')
from batch join crawl using (crawl_no)
where crawl = %(crawl)s
