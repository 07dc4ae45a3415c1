-- name: unplanned
select count(*) from partition where crawl_no = %(crawl_no)s and not planned and fingerprint <> ''

-- name: unplanned_partitions
-- Those that no loader changes right now; the caller waits for the others outside of the transaction.
select partition_no, (stats ->> 'kept')::bigint from partition
where crawl_no = %(crawl_no)s and not planned and fingerprint <> ''
order by partition_no
for update skip locked

-- name: mark_planning
-- From here on their rows are final, as long as the planner holds the lock of its crawl.
update partition set planning = true where partition_no = any (%(partitions)s)

-- name: stored_pairs
select coalesce(sum((stats ->> 'kept')::bigint), 0)::bigint from partition

-- name: index_scans
-- By the primary key a range costs what it holds, whatever the size of the tables and however old their statistics.
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)

-- name: copy_new_pairs
-- In the order of the table's key, also where the first column is computed: it is named pair_id, too.
copy (
    select case when {by_url} and pair.url <> '' then md5(pair.url || caption)::uuid else pair_id end,
           pair.url, caption, language, page.license, page.url
    from pair join page using (partition_no, page_no)
    where pair_id between {first} and {last} and partition_no = any ({partitions})
    order by pair.pair_id
) to stdout (format binary)

-- name: numbers_taken
select batch from batch where batch between %(first)s and %(last)s

-- name: copy_batches
copy batch (batch, crawl_no, pairs, file) from stdin

-- name: mark_planned
update partition set planned = true, planning = false where partition_no = any (%(partitions)s) and not planned

-- name: planned_partitions
select partition_no from partition where crawl_no = %(crawl_no)s and planned order by partition_no

-- name: planned_totals
select coalesce(sum((stats ->> 'kept')::bigint), 0)::bigint from partition
where crawl_no = %(crawl_no)s and planned

-- name: batches
select batch, pairs, file from batch where crawl_no = %(crawl_no)s order by batch

-- name: batches_of
select batch, pairs, file from batch join crawl using (crawl_no) where crawl = %(crawl)s order by batch
