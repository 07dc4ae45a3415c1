-- Loaders of different partitions work side by side: each holds the lock of the range of keys that it writes, not one lock of
-- the whole table. What a partition has done is recorded by range, in the transaction that writes the range.

create table key_ranges (
    ranges integer not null check (ranges between 1 and 1024),
    is_only boolean not null default true primary key check (is_only)
);
comment on table key_ranges is 'Into how many equal ranges of pair_id loads are split in this database, one row; never changed.';
comment on column key_ranges.ranges is 'Number of ranges; it divides the number of leaves of table pair, or is a multiple of it.';
comment on column key_ranges.is_only is 'Always true: there is one number.';

-- laion_etl.key_ranges is set by the migration runner. What each range of earlier partitions has lost is not known, so a database
-- that has some keeps one range: its loaders take turns, as before.
insert into key_ranges (ranges)
select case
    when exists (select from partition) then 1
    when wanted % leaves = 0 or leaves % wanted = 0 then wanted
    else leaves end
from (select coalesce(nullif(current_setting('laion_etl.key_ranges', true), ''), '64')::integer as wanted,
             (select count(*)::integer from pg_inherits where inhparent = 'pair'::regclass) as leaves) as numbers;

alter table partition add column version integer not null default 1;
comment on column partition.version is 'Counts the versions of its pairs file that loads have begun with; loading is the fingerprint of this one.';
alter table partition add column first_page integer not null default 0;
comment on column partition.first_page is 'Number of the first page of the version: pages of earlier ones have lower numbers.';

create table partition_range (
    partition_no  integer  not null references partition (partition_no) on delete cascade,
    range_no      smallint not null,
    version       integer  not null,
    kept          integer  not null,
    lost_in_crawl integer  not null,
    lost_earlier  integer  not null,
    primary key (partition_no, range_no)
) with (fillfactor = 70);
comment on table partition_range is 'The ranges of keys that a partition has loaded. One without a row has not been begun.';
comment on column partition_range.partition_no is 'The partition.';
comment on column partition_range.range_no is 'Number of the range, from 0 in the order of pair_id.';
comment on column partition_range.version is 'The version of the partition it was loaded from: an earlier one than partition.version is replaced.';
comment on column partition_range.kept is 'Rows of the partition in the range.';
comment on column partition_range.lost_in_crawl is 'Its pairs that another partition of the crawl has.';
comment on column partition_range.lost_earlier is 'Its pairs that a partition of another crawl has.';

-- Earlier partitions: the loaded ones have done their only range; what interrupted loads have written is replaced when they go on.
update partition set loading = fingerprint where loading = '' and fingerprint <> '';
update partition set first_page = coalesce(
    (select max(page_no) + 1 from page where page.partition_no = partition.partition_no), 0);
insert into partition_range (partition_no, range_no, version, kept, lost_in_crawl, lost_earlier)
select partition_no, 0, (fingerprint <> '')::integer,
       coalesce((stats ->> 'kept')::integer, 0),
       coalesce((stats -> 'dropped' ->> 'duplicate_in_crawl')::integer, 0),
       coalesce((stats -> 'dropped' ->> 'duplicate_of_earlier_crawl')::integer, 0)
from partition join crawl using (crawl_no)
where crawl <> 'imported-memory';

-- Rights of the roles, where they exist; 004_roles.sql grants the same if it is run later.
do $$
begin
    if exists (select from pg_roles where rolname = 'laion_loader') then
        grant select on key_ranges to laion_reader, laion_loader, laion_planner;
        grant select on partition_range to laion_reader, laion_planner;
        grant select, insert, update on partition_range to laion_loader;
    end if;
end
$$;
