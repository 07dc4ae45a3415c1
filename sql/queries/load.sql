-- name: set_rule
insert into dedupe_rule (rule) values (%(rule)s) on conflict do nothing

-- name: rule
select rule from dedupe_rule

-- name: register_crawl
insert into crawl (crawl) values (%(crawl)s) on conflict (crawl) do nothing

-- name: crawl_number
select crawl_no, forgotten_to is not null from crawl where crawl = %(crawl)s

-- name: key_ranges
select ranges from key_ranges

-- name: partition
-- Kept from other programs that change its row, and not from those that only take pairs over from it.
select partition_no, fingerprint, loading, version, first_page, planned, planning from partition
where crawl_no = %(crawl_no)s and partition = %(partition)s
for no key update

-- name: loaded_as
select partition_no from partition join crawl using (crawl_no)
where crawl = %(crawl)s and partition = %(partition)s and fingerprint = %(fingerprint)s

-- name: planned_of_crawl
-- Their pairs are cut into batches: the settings they were made with are those of the crawl.
select partition from partition join crawl using (crawl_no)
where crawl = %(crawl)s and planned order by partition

-- name: add_partition
-- Without a fingerprint: it may have rows from here on, but is not loaded.
insert into partition (crawl_no, partition, fingerprint, loading, stats)
values (%(crawl_no)s, %(partition)s, '', %(loading)s, '{}')
returning partition_no

-- name: begin_version
-- Its pages get numbers of their own: rows of the version before are replaced range by range and have theirs until then.
update partition
set fingerprint = '', loading = %(loading)s, stats = '{}', version = version + 1,
    first_page = greatest(
        coalesce((select max(page_no) + 1 from page where page.partition_no = partition.partition_no), 0), %(pages_end)s)
where partition_no = %(partition_no)s
returning version, first_page

-- name: version_at_work
-- None: the crawl is being forgotten, or has been.
select version from partition join crawl using (crawl_no)
where partition_no = %(partition_no)s and forgotten_to is null

-- name: ranges_begun
-- Each range that some version of the partition has loaded.
select range_no, version from partition_range where partition_no = %(partition_no)s

-- name: save_ranges
insert into partition_range (partition_no, range_no, version, kept, lost_in_crawl, lost_earlier)
select %(partition_no)s, range_no, %(version)s, kept, in_crawl, earlier
from unnest(%(ranges)s::smallint[], %(kept)s::integer[], %(in_crawl)s::integer[], %(earlier)s::integer[])
    as loaded (range_no, kept, in_crawl, earlier)
on conflict (partition_no, range_no) do update
set version = excluded.version, kept = excluded.kept,
    lost_in_crawl = excluded.lost_in_crawl, lost_earlier = excluded.lost_earlier

-- name: change_ranges
-- Pairs that partitions have got from each other; numbers below zero are those of fewer.
update partition_range as mine
set kept = mine.kept + change.kept, lost_in_crawl = mine.lost_in_crawl + change.in_crawl,
    lost_earlier = mine.lost_earlier + change.earlier
from unnest(%(partitions)s::integer[], %(ranges)s::smallint[], %(kept)s::integer[], %(in_crawl)s::integer[],
            %(earlier)s::integer[]) as change (partition_no, range_no, kept, in_crawl, earlier)
where mine.partition_no = change.partition_no and mine.range_no = change.range_no

-- name: stats_to_change
-- In this order, and the last thing that a transaction does: another one waits for its commit only.
select partition_no, stats from partition
where partition_no = any (%(numbers)s)
order by partition_no
for no key update

-- name: change_stats
update partition set stats = change.stats
from unnest(%(numbers)s::integer[], %(stats)s::jsonb[]) as change (partition_no, stats)
where partition.partition_no = change.partition_no

-- name: lock_partition
select version from partition where partition_no = %(partition_no)s for no key update

-- name: range_totals
select count(*), coalesce(sum(kept), 0)::bigint, coalesce(sum(lost_in_crawl), 0)::bigint,
       coalesce(sum(lost_earlier), 0)::bigint
from partition_range where partition_no = %(partition_no)s and version = %(version)s

-- name: save_partition
update partition set fingerprint = %(fingerprint)s, loading = %(fingerprint)s, stats = %(stats)s, loaded_at = now()
where partition_no = %(partition_no)s

-- name: save_parsed
update partition set parsed = %(parsed)s where partition_no = %(partition_no)s

-- name: lazy_commit
-- A crash of the server may undo the last of these transactions as a whole, and never one before a later one: what
-- counts is the record that the partition is loaded, and that is committed as usual.
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
-- Waits for a planner that is just beginning a round, and then leaves out the partitions of the round; a planner begins none
-- while the row of a partition is locked, and tries again. The lock is one that several loaders may have, and that a change of the stats does
-- not wait for.
select partition_no from partition
where partition_no = any (%(numbers)s) and not planned and not planning
order by partition_no
for key share

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

-- name: copy_pairs
copy pair (partition_no, page_no, pair_id, url, caption, language, caption_source) from stdin (format binary)

-- name: copy_pages
copy page (partition_no, page_no, url, license) from stdin (format binary)

-- name: outdated_pages
-- Of versions before; no row has them any more. Some at a time.
delete from page where partition_no = %(partition_no)s and page_no in (
    select page_no from page where partition_no = %(partition_no)s and page_no < %(first_page)s
    order by page_no limit %(rows)s)

-- name: pages_among
select page_no from page where partition_no = %(partition_no)s and page_no = any (%(pages)s)

-- name: losers
-- Partitions that lost pairs to others in some of these ranges and may get some back.
select crawl, crawl_no, partition, partition_no, loading, partition.version, first_page
from partition join crawl using (crawl_no)
where not planned and not planning and forgotten_to is null and partition_no <> %(partition_no)s and exists (
    select from partition_range as mine
    where mine.partition_no = partition.partition_no and mine.version = partition.version
      and range_no = any (%(ranges)s) and lost_in_crawl + lost_earlier > 0)
order by crawl_no, partition

-- name: stats_of
select crawl, partition, stats from partition join crawl using (crawl_no)
where partition_no = %(partition_no)s

-- name: lock_stats
select pg_try_advisory_xact_lock(3, %(partition_no)s)
