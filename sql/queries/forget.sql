-- name: begin
-- From here on nothing of the crawl counts as loaded or planned, and only forget may use it.
update crawl set forgotten_to = coalesce(forgotten_to, '00000000-0000-0000-0000-000000000000'::uuid)
where crawl_no = %(crawl_no)s
returning forgotten_to

-- name: lock_rounds
-- First, as planners do that record a window.
select round from plan_round where crawl_no = %(crawl_no)s order by round for update

-- name: plan_windows
-- A planner that is cutting one finds it gone, and records nothing.
delete from plan_window where crawl_no = %(crawl_no)s

-- name: plan_rounds
delete from plan_round where crawl_no = %(crawl_no)s

-- name: unmark_partitions
update partition set planned = false, planning = false, fingerprint = '', loading = ''
where crawl_no = %(crawl_no)s

-- name: batches
-- Found by the indexes of their states: that of the numbers also has the batches of all other crawls.
delete from batch where batch = any (array(
    (select batch from batch where crawl_no = %(crawl_no)s and state = 'ready' order by batch limit %(rows)s)
    union all
    (select batch from batch where crawl_no = %(crawl_no)s and state = 'downloading' order by lease_expires limit %(rows)s)
    union all
    (select batch from batch where crawl_no = %(crawl_no)s and state = 'downloaded' order by batch limit %(rows)s)
    union all
    (select batch from batch where crawl_no = %(crawl_no)s and state = 'scoring' order by lease_expires limit %(rows)s)
    union all
    (select batch from batch where crawl_no = %(crawl_no)s and state = 'scored' order by scored_at limit %(rows)s)
    union all
    (select batch from batch where crawl_no = %(crawl_no)s and state = 'parked' order by batch limit %(rows)s)
    limit %(rows)s))

-- name: pairs
delete from pair
where pair_id between %(first)s and %(last)s and partition_no = any ((select %(partitions)s)::integer[])

-- name: move_on
update crawl set forgotten_to = %(last)s where crawl_no = %(crawl_no)s

-- name: partitions
select partition_no from partition where crawl_no = %(crawl_no)s order by partition_no

-- name: pages
delete from page where partition_no = %(partition_no)s and page_no in (
    select page_no from page where partition_no = %(partition_no)s order by page_no limit %(rows)s)

-- name: partition
delete from partition where partition_no = %(partition_no)s

-- name: thousands
-- All of them are zero; a change that is not rolled up yet would bring one back.
delete from batch_thousand where crawl_no = %(crawl_no)s
  and not exists (select from batch_change where crawl_no = %(crawl_no)s)

-- name: crawl
delete from crawl where crawl_no = %(crawl_no)s
