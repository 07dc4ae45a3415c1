-- The queue as the fleet of a consumer (download, score) needs it: KEDA runs open_*, Airflow waits by state_*.

-- name: open_download
-- Batches that are ready or being downloaded: those at work count, or KEDA would end their workers.
select coalesce(sum(batches - done - failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s

-- name: state_download
-- Batches that are open, of these at work, finished and parked; the same columns for each consumer.
select coalesce(sum(batches - done - failed), 0)::bigint,
       (select count(*) from batch join crawl using (crawl_no) where crawl = %(crawl)s and state = 'downloading'),
       coalesce(sum(done), 0)::bigint, coalesce(sum(failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s

-- name: open_score
-- Batches that are downloaded or being scored.
select coalesce(sum(done - scored - score_failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s

-- name: state_score
-- Those that are still to be downloaded are open, too: scoring has not ended before they are scored. What is parked in
-- either stage is not scored.
select coalesce(sum(batches - failed - scored - score_failed), 0)::bigint,
       (select count(*) from batch join crawl using (crawl_no) where crawl = %(crawl)s and state = 'scoring'),
       coalesce(sum(scored), 0)::bigint, coalesce(sum(failed + score_failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s
