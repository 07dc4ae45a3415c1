-- name: open_rounds
select crawl from plan_round join crawl using (crawl_no) where not done order by 1

-- name: being_forgotten
select crawl from crawl where forgotten_to is not null order by 1

-- name: pairs_by_range
-- Without imported keys, which are not in the counts of ranges.
select range_no, sum(kept)::bigint from partition_range group by 1

-- name: take_range
select pg_try_advisory_xact_lock(1, %(range_no)s)

-- name: home
select server_no, moving_to from range_home where range_no = %(range_no)s

-- name: copy_pairs
copy (
    select partition_no, page_no, pair_id, url, caption, language, caption_source from pair
    where pair_id between {first} and {last} order by pair_id
) to stdout (format binary)

-- name: pages
select partition_no, page_no, url, license from page
where (partition_no, page_no) in (select partition_no, page_no from pair where pair_id between %(first)s and %(last)s)
order by partition_no, page_no

-- name: add_pages
-- A page can have pairs in several ranges, so it may exist already.
insert into page (partition_no, page_no, url, license)
select * from unnest(%(partitions)s::integer[], %(pages)s::integer[], %(urls)s::text[], %(licenses)s::text[])
on conflict do nothing

-- name: delete_pairs
delete from pair where pair_id between %(first)s and %(last)s

-- name: sum_of_pairs
-- Number and checksum of rows with all their columns and their pages; independent of order and server.
select count(*)::bigint,
       coalesce(sum(('x' || left(md5(row(pair.partition_no, pair.page_no, pair_id, pair.url, caption, language,
                                         caption_source, page.url, page.license)::text), 15))::bit(60)::bigint), 0)::numeric
from pair left join page using (partition_no, page_no)
where pair_id between %(first)s and %(last)s

-- name: counts
select partition_no, range_no, version, kept, lost_in_crawl, lost_earlier from partition_range
where range_no = %(range_no)s
order by partition_no

-- name: copy_counts
copy partition_range (partition_no, range_no, version, kept, lost_in_crawl, lost_earlier) from stdin

-- name: delete_counts
delete from partition_range where range_no = %(range_no)s

-- name: partitions
select crawl_no, crawl, partition_no, partition, loading, version, first_page, planning or planned as planning
from partition join crawl using (crawl_no)
where partition_no > %(after)s
order by partition_no
limit %(rows)s

-- name: add_crawl
insert into crawl (crawl_no, crawl) overriding system value values (%(crawl_no)s, %(crawl)s)
on conflict (crawl_no) do nothing

-- name: add_partition
insert into partition as mine (crawl_no, partition, partition_no, fingerprint, loading, stats, version, first_page, planning)
overriding system value
values (%(crawl_no)s, %(partition)s, %(partition_no)s, '', %(loading)s, '{}', %(version)s, %(first_page)s, %(planning)s)
on conflict (partition_no) do update
set loading = excluded.loading, version = excluded.version, first_page = excluded.first_page,
    planning = mine.planning or excluded.planning
where mine.crawl_no = excluded.crawl_no and mine.partition = excluded.partition and mine.version <= excluded.version
