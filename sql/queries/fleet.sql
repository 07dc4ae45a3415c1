-- The queue as seen by the worker fleet of a consumer (download, score): KEDA runs open_*, Airflow polls state_*.

-- name: open_download
-- Batches that are ready or being downloaded. The latter count too, as otherwise KEDA would stop their workers.
select coalesce(sum(to_download + downloading), 0)::bigint from queue_depth where crawl = %(crawl)s

-- name: state_download
-- Numbers of batches that are open, in progress among these, finished and parked; the same columns for each consumer.
select coalesce(sum(batches - done - failed), 0)::bigint,
       (select count(*) from batch join crawl using (crawl_no) where crawl = %(crawl)s and state = 'downloading'),
       coalesce(sum(done), 0)::bigint, coalesce(sum(failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s

-- name: open_score
-- Batches that are downloaded or being scored.
select coalesce(sum(to_score + scoring), 0)::bigint from queue_depth where crawl = %(crawl)s

-- name: state_score
-- Batches still to be downloaded are open, too: scoring is not finished before they are scored. What is parked in either
-- stage is not scored.
select coalesce(sum(batches - failed - scored - score_failed), 0)::bigint,
       (select count(*) from batch join crawl using (crawl_no) where crawl = %(crawl)s and state = 'scoring'),
       coalesce(sum(scored), 0)::bigint, coalesce(sum(failed + score_failed), 0)::bigint
from batch_count join crawl using (crawl_no)
where crawl = %(crawl)s
