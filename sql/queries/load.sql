-- name: set_rule
insert into dedupe_rule (rule) values (%(rule)s) on conflict do nothing

-- name: rule
select rule from dedupe_rule

-- name: register_crawl
insert into crawl (crawl) values (%(crawl)s) on conflict (crawl) do nothing

-- name: crawl_number
select crawl_no, forgotten_to is not null from crawl where crawl = %(crawl)s

-- name: partition
select partition_no, fingerprint, loading from partition
where crawl_no = %(crawl_no)s and partition = %(partition)s

-- name: loaded_as
select partition_no from partition join crawl using (crawl_no)
where crawl = %(crawl)s and partition = %(partition)s and fingerprint = %(fingerprint)s

-- name: partition_for_update
-- What is being planned is as final as what is planned, whether or not a planner is at work.
select planned or planning, planning from partition where partition_no = %(partition_no)s for update

-- name: planned_of_crawl
-- Their pairs are cut into batches: the settings they were made with are those of the crawl.
select partition from partition join crawl using (crawl_no)
where crawl = %(crawl)s and planned order by partition

-- name: add_partition
-- Without a fingerprint: it may have rows from here on, but is not loaded.
insert into partition (crawl_no, partition, fingerprint, loading, stats)
values (%(crawl_no)s, %(partition)s, '', %(loading)s, '{}')
returning partition_no

-- name: save_partition
update partition set fingerprint = %(fingerprint)s, loading = %(fingerprint)s, stats = %(stats)s, loaded_at = now()
where partition_no = %(partition_no)s

-- name: lazy_commit
-- A crash of the server may undo the last of these transactions, and never one before a later one: what counts is
-- the record that the partition is loaded, and that is committed as usual.
select set_config('synchronous_commit', 'off', true)

-- name: planned
select partition, fingerprint from partition join crawl using (crawl_no)
where crawl = %(crawl)s and planned and fingerprint <> ''
order by partition

-- name: only_index_scans
-- The keys are sorted: one walk over the leaves of the index finds them all. (Below, the keys are in a subselect
-- because the planner inspects each element of an array that it can see, which takes longer than the walk.)
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)

-- name: any_scans
select set_config('enable_seqscan', 'on', true), set_config('enable_bitmapscan', 'on', true)

-- name: probe_pair
-- The keys that have a row, each with the partition that has it: 20 bytes a row.
select string_agg(uuid_send(pair_id) || int4send(partition_no), ''::bytea) from pair
where pair_id = any ((select %(keys)s)::uuid[]) and pair_id between %(first)s and %(last)s

-- name: probe_url
-- The same, followed by what the rule compares: the rank of the caption (see laion_etl.database.dedupe_keys), then
-- MD5 of url + caption. 40 bytes a row.
select string_agg(
    uuid_send(pair_id) || int4send(partition_no)
    || int4send((language <> '')::integer * 1000 + least(char_length(caption), 200))
    || decode(md5(url || caption), 'hex'), ''::bytea)
from pair
where pair_id = any ((select %(keys)s)::uuid[]) and pair_id between %(first)s and %(last)s

-- name: owners
select partition_no, crawl_no, partition, planned from partition where partition_no = any (%(numbers)s)

-- name: open_owners
-- Waits for a planner that is just beginning a round, and then leaves out the partitions of the round.
select partition_no from partition
where partition_no = any (%(numbers)s) and not planned and not planning
order by partition_no
for update

-- name: remove_pairs
delete from pair where pair_id = any ((select %(keys)s)::uuid[]) and pair_id between %(first)s and %(last)s

-- name: leaves
select inhrelid::bigint from pg_inherits where inhparent = 'pair_of_partition'::regclass order by inhrelid

-- name: summarize
select summarize_new_pairs(%(leaf)s::oid::regclass)

-- name: rows_by_pair
-- As probe_pair returns them: all rows of a partition.
select string_agg(uuid_send(pair_id) || int4send(partition_no), ''::bytea) from pair
where partition_no = %(partition_no)s and pair_id between %(first)s and %(last)s

-- name: rows_by_url
-- As probe_url returns them.
select string_agg(
    uuid_send(pair_id) || int4send(partition_no)
    || int4send((language <> '')::integer * 1000 + least(char_length(caption), 200))
    || decode(md5(url || caption), 'hex'), ''::bytea)
from pair
where partition_no = %(partition_no)s and pair_id between %(first)s and %(last)s

-- name: unload_pairs
delete from pair where partition_no = %(partition_no)s

-- name: unload_pages
delete from page where partition_no = %(partition_no)s

-- name: copy_pairs
copy pair (partition_no, page_no, pair_id, url, caption, language) from stdin (format binary)

-- name: copy_pages
copy page (partition_no, page_no, url, license) from stdin (format binary)

-- name: pages_among
select page_no from page where partition_no = %(partition_no)s and page_no = any (%(pages)s)

-- name: next_page
select coalesce(max(page_no) + 1, 0) from page where partition_no = %(partition_no)s

-- name: losers
-- Partitions that lost pairs to others and may get some back.
select crawl, crawl_no, partition, partition_no, fingerprint
from partition join crawl using (crawl_no)
where not planned and fingerprint <> '' and partition_no <> %(partition_no)s
  and coalesce((stats -> 'dropped' ->> 'duplicate_in_crawl')::bigint, 0)
    + coalesce((stats -> 'dropped' ->> 'duplicate_of_earlier_crawl')::bigint, 0) > 0
order by crawl_no, partition

-- name: stats_of
select crawl, partition, stats from partition join crawl using (crawl_no)
where partition_no = %(partition_no)s

-- name: adjust_stats
update partition set stats = %(stats)s where partition_no = %(partition_no)s

-- name: lock_stats
select pg_try_advisory_xact_lock(3, %(partition_no)s)
