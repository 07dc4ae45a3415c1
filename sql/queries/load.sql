-- name: register_crawl
insert into crawl (crawl) values (%(crawl)s) on conflict (crawl) do nothing

-- name: crawl_number
select crawl_no from crawl where crawl = %(crawl)s

-- name: lock_for_load
select pg_advisory_xact_lock_shared(1, %(crawl_no)s)

-- name: lock_for_unload
select pg_advisory_xact_lock(1, %(crawl_no)s)

-- name: partition_state
select fingerprint, planned, stats from partition
where crawl_no = %(crawl_no)s and partition = %(partition)s

-- name: unload_pairs
delete from pair
using partition
where pair.crawl_no = %(crawl_no)s
  and partition.crawl_no = pair.crawl_no
  and partition.partition = pair.partition
  and not partition.planned

-- name: unload_partitions
delete from partition where crawl_no = %(crawl_no)s and not planned

-- name: create_staging
create temporary table staging (
    pair_id  uuid not null,
    url      text not null,
    alt      text not null,
    language text not null,
    license  text not null,
    page_url text not null
) on commit drop

-- name: copy_staging
copy staging (pair_id, url, alt, language, license, page_url) from stdin (format binary)

-- name: insert_pairs
-- Rows go in by pair_id, so that loaders running side by side take row locks in one order.
insert into pair (pair_id, crawl_no, partition, url, alt, language, license, page_url)
select distinct on (pair_id)
       pair_id, %(crawl_no)s, %(partition)s, url, alt, language, license, page_url
from staging
order by pair_id
on conflict (pair_id) do nothing

-- name: take_over_pairs
-- A pair found in several partitions of a crawl belongs to the lowest, whatever the load order, unless
-- its batch is already cut. Runs after insert_pairs, when every row it met is committed.
with owner as (
    select partition from partition
    where crawl_no = %(crawl_no)s and partition > %(partition)s and not planned
), contested as (
    select pair.pair_id
    from staging join pair using (pair_id) join owner using (partition)
    where pair.crawl_no = %(crawl_no)s
    order by pair.pair_id
    for update of pair
)
update pair
set partition = %(partition)s, license = staging.license, page_url = staging.page_url
from contested join staging using (pair_id)
where pair.pair_id = contested.pair_id and pair.partition > %(partition)s

-- name: count_of_earlier_crawls
select count(*) from staging join pair using (pair_id) where pair.crawl_no <> %(crawl_no)s

-- name: save_partition
insert into partition (crawl_no, partition, fingerprint, stats)
values (%(crawl_no)s, %(partition)s, %(fingerprint)s, %(stats)s)
