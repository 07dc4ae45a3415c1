-- name: unplanned
select count(*) from partition where crawl_no = %(crawl_no)s and not planned and fingerprint <> ''

-- name: unplanned_partitions
-- Those that no loader changes right now; the caller waits for the others outside of the transaction.
select partition_no, (stats ->> 'kept')::bigint, fingerprint from partition
where crawl_no = %(crawl_no)s and not planned and fingerprint <> ''
order by partition_no
for update skip locked

-- name: mark_planning
-- From here on their rows are final.
update partition set planning = true where partition_no = any (%(partitions)s)

-- name: last_round
select max(round) from plan_round where crawl_no = %(crawl_no)s

-- name: add_round
insert into plan_round (crawl_no, round, pairs, fingerprint, done)
values (%(crawl_no)s, %(round)s, %(pairs)s, %(fingerprint)s, %(done)s)

-- name: copy_windows
copy plan_window (crawl_no, round, window_no, first_key, last_key, first_batch, last_batch) from stdin

-- name: copy_earlier_windows
copy plan_window (crawl_no, round, window_no, first_batch, last_batch, done, pairs, batches, numbers, file) from stdin

-- name: open_round
select round, pairs, fingerprint from plan_round where crawl_no = %(crawl_no)s and not done

-- name: open_windows
select window_no, first_key, last_key, first_batch, last_batch, done, pairs, batches from plan_window
where crawl_no = %(crawl_no)s and round = %(round)s
order by window_no

-- name: round_partitions
select partition_no from partition where crawl_no = %(crawl_no)s and planning order by partition_no

-- name: is_window_done
select done from plan_window where crawl_no = %(crawl_no)s and round = %(round)s and window_no = %(window_no)s

-- name: lock_round
-- So that one of those that record a window knows that it is the last; held for milliseconds.
select pairs from plan_round where crawl_no = %(crawl_no)s and round = %(round)s for update

-- name: stored_pairs
select coalesce(sum((stats ->> 'kept')::bigint), 0)::bigint from partition

-- name: index_scans
-- By the primary key a range costs what it holds, whatever the size of the tables and however old their statistics.
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)

-- name: copy_new_pairs
-- In the order of the table's key, also where the first column is computed: it is named pair_id, too.
copy (
    select case when {by_url} and url <> '' then md5(url || caption)::uuid else pair_id end,
           url, caption, language, coalesce(caption_source, 'alt'), partition_no, page_no
    from pair
    where pair_id between {first} and {last} and partition_no = any ({partitions})
    order by pair.pair_id
) to stdout (format binary)

-- name: copy_pages
-- The page numbers of a partition are a slice of an array, ascending: one walk over the leaves of the index finds them all. (They are
-- in a subselect because the planner inspects each element of an array that it can see.)
copy (
    select partition_no, page_no, license, url
    from unnest({partitions}::integer[], {firsts}::integer[], {lasts}::integer[]) as wanted (number, first, last)
    cross join lateral (
        select partition_no, page_no, license, url from page
        where partition_no = number and page_no = any ((select {pages}::integer[])[first:last])
    ) as pages
) to stdout (format binary)

-- name: highest_number
select max(batch) from batch where batch between %(first)s and %(last)s

-- name: numbers_among
select batch from batch where batch = any (%(numbers)s)

-- name: copy_batches
copy batch (batch, crawl_no, pairs, file) from stdin

-- name: record_window
update plan_window
set done = true, pairs = %(pairs)s, batches = %(batches)s, numbers = %(numbers)s, file = %(file)s, done_at = now()
where crawl_no = %(crawl_no)s and round = %(round)s and window_no = %(window_no)s

-- name: round_progress
select count(*) filter (where not done), coalesce(sum(pairs), 0)::bigint from plan_window
where crawl_no = %(crawl_no)s and round = %(round)s

-- name: mark_planned
update partition set planned = true, planning = false where partition_no = any (%(partitions)s) and not planned

-- name: mark_round_planned
update partition set planned = true, planning = false where crawl_no = %(crawl_no)s and planning

-- name: finish_round
update plan_round set done = true where crawl_no = %(crawl_no)s and round = %(round)s

-- name: planned_partitions
select partition_no, partition, stats from partition where crawl_no = %(crawl_no)s and planned order by partition_no

-- name: to_record
-- What the plan's record in the store lists, as of one moment, for other planners record windows meanwhile: the pairs of
-- planned partitions and the round that is open, the same in every row, and the windows of the rounds that are done.
select (
           select coalesce(sum((stats ->> 'kept')::bigint), 0)::bigint from partition
           where crawl_no = %(crawl_no)s and planned
       ),
       (
           select jsonb_build_object('fingerprint', fingerprint, 'windows', (
               select count(*) from plan_window where plan_window.crawl_no = plan_round.crawl_no
               and plan_window.round = plan_round.round))
           from plan_round where crawl_no = %(crawl_no)s and not done
       ),
       plan_window.pairs, numbers, file
from (select) as always left join (plan_window join plan_round using (crawl_no, round))
     on crawl_no = %(crawl_no)s and plan_round.done
order by round, window_no

-- name: window_files_of
select file from plan_window join plan_round using (crawl_no, round) join crawl using (crawl_no)
where crawl = %(crawl)s and plan_round.done
order by round, window_no

-- name: a_round_of
select round from plan_round join crawl using (crawl_no) where crawl = %(crawl)s limit 1

-- name: windows_left_of
select count(*) from plan_window join crawl using (crawl_no) where crawl = %(crawl)s and not done

-- name: a_batch_of
-- Found by the indexes of their states: that of the numbers also has the batches of all other crawls.
(select batch from batch where crawl_no = %(crawl_no)s and state = 'ready' order by batch limit 1)
union all
(select batch from batch where crawl_no = %(crawl_no)s and state = 'downloading' order by lease_expires limit 1)
union all
(select batch from batch where crawl_no = %(crawl_no)s and state = 'downloaded' order by batch limit 1)
union all
(select batch from batch where crawl_no = %(crawl_no)s and state = 'scoring' order by lease_expires limit 1)
union all
(select batch from batch where crawl_no = %(crawl_no)s and state = 'scored' order by scored_at limit 1)
union all
(select batch from batch where crawl_no = %(crawl_no)s and state = 'parked' order by batch limit 1)
limit 1

-- name: batches_after
select batch, pairs, file from batch where crawl_no = %(crawl_no)s and batch > %(after)s order by batch limit %(rows)s

-- name: batches_among
select batch, pairs, file from batch where batch = any (%(numbers)s) order by batch

-- name: batches_of
select batch, pairs, file from batch join crawl using (crawl_no) where crawl = %(crawl)s order by batch
