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
-- A pair found in several partitions of a crawl belongs to the lowest, whatever the load order,
-- unless its batch is already cut. xmax = 0 tells inserted rows from taken-over ones.
with loaded as (
    insert into pair as known (pair_id, crawl_no, partition, url, alt, language, license, page_url)
    select distinct on (pair_id)
           pair_id, %(crawl_no)s, %(partition)s, url, alt, language, license, page_url
    from staging
    order by pair_id
    on conflict (pair_id) do update
        set partition = excluded.partition, license = excluded.license, page_url = excluded.page_url
        where known.crawl_no = excluded.crawl_no
          and known.partition > excluded.partition
          and not exists (
              select from partition as owner
              where owner.crawl_no = known.crawl_no
                and owner.partition = known.partition
                and owner.planned)
    returning xmax = 0 as inserted
)
select count(*) filter (where inserted) from loaded

-- name: count_of_earlier_crawls
select count(*) from staging join pair using (pair_id) where pair.crawl_no <> %(crawl_no)s

-- name: save_partition
insert into partition (crawl_no, partition, fingerprint, stats)
values (%(crawl_no)s, %(partition)s, %(fingerprint)s, %(stats)s)
