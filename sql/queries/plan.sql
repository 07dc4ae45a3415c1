-- name: lock_planner
select pg_advisory_xact_lock(2, 0)

-- name: unplanned_partitions
-- Locked until they are marked as planned: a loader that wants their rows waits, and then leaves them alone.
select partition_no, (stats ->> 'kept')::bigint from partition
where crawl_no = %(crawl_no)s and not planned and fingerprint <> ''
order by partition_no
for update

-- name: copy_new_pairs
copy (
    select case when {by_url} and pair.url <> '' then md5(pair.url || caption)::uuid else pair_id end,
           pair.url, caption, language, page.license, page.url
    from pair join page using (partition_no, page_no)
    where pair_id between {first} and {last} and partition_no = any ({partitions})
    order by pair_id
) to stdout (format binary)

-- name: numbers_taken
select batch from batch where batch between %(first)s and %(last)s

-- name: insert_batch
insert into batch (batch, crawl_no, pairs, file)
values (%(batch)s, %(crawl_no)s, %(pairs)s, %(file)s)

-- name: mark_planned
update partition set planned = true where partition_no = any (%(partitions)s)

-- name: planned_partitions
select partition_no from partition where crawl_no = %(crawl_no)s and planned order by partition_no

-- name: planned_totals
select coalesce(sum((stats ->> 'kept')::bigint), 0)::bigint from partition
where crawl_no = %(crawl_no)s and planned

-- name: batches
select batch, pairs, file from batch where crawl_no = %(crawl_no)s order by batch

-- name: batches_of
select batch, pairs, file from batch join crawl using (crawl_no) where crawl = %(crawl)s order by batch

-- name: forget_pairs
delete from pair
where partition_no in (select partition_no from partition where crawl_no = %(crawl_no)s)

-- name: forget_pages
delete from page
where partition_no in (select partition_no from partition where crawl_no = %(crawl_no)s)

-- name: forget_batches
delete from batch where crawl_no = %(crawl_no)s

-- name: forget_partitions
delete from partition where crawl_no = %(crawl_no)s

-- name: forget_crawl
delete from crawl where crawl_no = %(crawl_no)s
