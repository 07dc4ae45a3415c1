-- name: this
select server_id, server_no, first_id from this_server

-- name: recorded
select server_no, server_id from database_server order by server_no

-- name: homes
select range_no, server_no, moving_to, moved_from from range_home order by range_no

-- name: leaves
select count(*)::integer from pg_inherits where inhparent = 'pair'::regclass

-- name: has_partitions
select exists (select from partition) or exists (select from crawl)

-- name: claim
-- A copy of another database has the other's id, so it gets a new one.
update this_server set server_id = gen_random_uuid(), server_no = %(server_no)s, first_id = %(first_id)s
where first_id is null and (select count(*) from database_server) = 1

-- name: record_server
insert into database_server (server_no, server_id) values (%(server_no)s, %(server_id)s)

-- name: set_home
update range_home set server_no = %(server_no)s, moving_to = %(moving_to)s, moved_from = %(moved_from)s
where range_no = %(range_no)s

-- name: partition_to_copy
select crawl_no, crawl, partition_no, partition, loading, version, first_page
from partition join crawl using (crawl_no)
where partition_no = %(partition_no)s

-- name: copy_partition
select copy_partition(%(crawl_no)s::smallint, %(crawl)s, %(partition_no)s, %(partition)s, %(loading)s, %(version)s,
                      %(first_page)s)

-- name: pages_end
select coalesce(max(page_no) + 1, 0) from page join partition using (partition_no) join crawl using (crawl_no)
where crawl = %(crawl)s and partition = %(partition)s

-- name: existing_partitions
select count(*) from partition where partition_no = any (%(numbers)s)

-- name: lock_partitions
-- Only those from which no loader is taking over pairs.
select partition_no from partition where partition_no = any (%(numbers)s) order by partition_no for update skip locked

-- name: freeze_partitions
update partition set planning = true where partition_no = any (%(numbers)s) and not planning

-- name: totals
-- Counts of the current version of partitions, from the ranges that are here.
select partition_no, partition.version, count(*), coalesce(sum(kept), 0)::bigint,
       coalesce(sum(lost_in_crawl), 0)::bigint, coalesce(sum(lost_earlier), 0)::bigint
from partition join partition_range using (partition_no, version)
where partition_no = any (%(numbers)s)
group by partition_no, partition.version

-- name: stats_to_refresh
select partition_no, version, stats from partition
where partition_no = any (%(numbers)s) and stats <> '{}'
order by partition_no
for no key update

-- name: forget_begin
insert into crawl (crawl_no, crawl, forgotten_to) overriding system value
values (%(crawl_no)s, %(crawl)s, '00000000-0000-0000-0000-000000000000')
on conflict (crawl_no) do update set forgotten_to = coalesce(crawl.forgotten_to, excluded.forgotten_to)
returning forgotten_to

-- name: forget_end
-- The row stays, so that a loader that lost its connection cannot bring the crawl back; the name can be used again.
update crawl set crawl = format('forgotten crawl %%s', crawl_no) where crawl_no = %(crawl_no)s

-- name: lock_stats
-- Like load.lock_stats, for all of these partitions; if false, the caller does not proceed.
select bool_and(pg_try_advisory_xact_lock(3, number)) from unnest(%(numbers)s::integer[]) as number

-- name: loaded_partitions
select partition_no, version, partition,
       pairs_in - coalesce((dropped ->> 'duplicate_in_partition')::bigint, 0)
from partition join crawl using (crawl_no)
where crawl = %(crawl)s and fingerprint <> ''
order by partition
