-- name: lock_planner
select pg_advisory_xact_lock(2, 0)

-- name: unplanned_partitions
select partition from partition where crawl_no = %(crawl_no)s and not planned order by partition

-- name: new_pairs
-- pair_id is a hash: its order spreads every host over all batches and is stable.
select pair_id, url, alt, language, license, page_url
from pair
where crawl_no = %(crawl_no)s and partition = any (%(partitions)s)
order by pair_id

-- name: next_batch
select coalesce(max(batch) + 1, 0) from batch

-- name: insert_batch
insert into batch (batch, crawl_no, pairs, file)
values (%(batch)s, %(crawl_no)s, %(pairs)s, %(file)s)

-- name: mark_planned
update partition set planned = true
where crawl_no = %(crawl_no)s and partition = any (%(partitions)s)

-- name: planned_totals
select coalesce(sum((stats ->> 'kept')::bigint), 0)::bigint from partition
where crawl_no = %(crawl_no)s and planned

-- name: batches
select batch, pairs, file from batch where crawl_no = %(crawl_no)s order by batch

-- name: forget_pairs
delete from pair where crawl_no = %(crawl_no)s

-- name: forget_batches
delete from batch where crawl_no = %(crawl_no)s

-- name: forget_partitions
delete from partition where crawl_no = %(crawl_no)s

-- name: forget_crawl
delete from crawl where crawl_no = %(crawl_no)s
