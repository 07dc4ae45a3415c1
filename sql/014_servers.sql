-- Key ranges on several servers: range r on server r mod n (docs/scaling-postgres.md). The first server has everything but
-- the ranges of the others: crawls, partitions, plans, the queue, and the record of which server has which range. An
-- additional server has whole ranges: their pairs and pages, their counts, and copies of the rows of table partition that
-- they refer to. So a loader writes a range in one transaction on one server.
--
-- Which ranges are here is checked by the transaction that writes them, under the lock of the range (locks.away).

create table this_server (
    server_id uuid     not null default gen_random_uuid(),
    server_no smallint not null default 0,
    first_id  uuid,
    is_only   boolean  not null default true primary key check (is_only)
);
comment on table this_server is 'What this database is among the servers of key ranges, one row.';
comment on column this_server.server_id is 'Its name for the others, whatever its address.';
comment on column this_server.server_no is 'Its place in the list of servers; 0: the first, or the only one.';
comment on column this_server.first_id is 'server_id of the first server; null in that one itself.';
comment on column this_server.is_only is 'Always true: there is one row.';
insert into this_server default values;

create table database_server (
    server_no smallint not null primary key,
    server_id uuid     not null unique
);
comment on table database_server is 'The servers of key ranges. It counts in the first one only.';
comment on column database_server.server_no is 'Place in LAION_ETL_DATABASE_URLS, from 0.';
comment on column database_server.server_id is 'this_server.server_id of that server.';
insert into database_server (server_no, server_id) select server_no, server_id from this_server;

create table range_home (
    range_no   smallint not null primary key,
    server_no  smallint not null,
    moving_to  smallint,
    moved_from smallint
);
comment on table range_home is 'Which server has which range. The first server decides; a further one has only to know which ranges it may write itself.';
comment on column range_home.range_no is 'The range of keys.';
comment on column range_home.server_no is 'The server that has it.';
comment on column range_home.moving_to is 'Not null: it is being copied to this server, and written nowhere meanwhile.';
comment on column range_home.moved_from is 'Not null: this server has what was copied, and deletes it.';
insert into range_home (range_no, server_no)
select range_no, 0 from key_ranges, generate_series(0, ranges - 1) as range_no;

-- An additional server gets a copy of a partition before the partition's first pair.
create function copy_partition(
    of_crawl_no smallint, of_crawl text, of_partition_no integer, of_partition integer, of_loading text, of_version integer,
    of_first_page integer
) returns boolean
language plpgsql security definer set search_path from current as $$
declare
    known crawl;
begin
    insert into crawl (crawl_no, crawl) overriding system value values (of_crawl_no, of_crawl) on conflict do nothing;
    -- Waits for a forget that is just starting, and blocks others from starting until this is committed.
    select * into known from crawl where crawl_no = of_crawl_no for share;
    if known.crawl is distinct from of_crawl or known.forgotten_to is not null then
        return false;
    end if;
    insert into partition as mine (crawl_no, partition, partition_no, fingerprint, loading, stats, version, first_page)
    overriding system value
    values (of_crawl_no, of_partition, of_partition_no, '', of_loading, '{}', of_version, of_first_page)
    on conflict (crawl_no, partition) do update
    set loading = excluded.loading, version = excluded.version, first_page = excluded.first_page
    where mine.version < excluded.version and mine.partition_no = excluded.partition_no;
    return exists (select from partition where partition_no = of_partition_no and crawl_no = of_crawl_no
                   and partition = of_partition and version = of_version);
end
$$;
comment on function copy_partition(smallint, text, integer, integer, text, integer, integer) is 'On a further server: adds a partition of the first one, or its next version. False: it has a later version, or the crawl is being forgotten.';
revoke execute on function copy_partition(smallint, text, integer, integer, text, integer, integer) from public;

comment on table crawl is 'Crawls that have been loaded, numbered to keep pair rows small. On a further server: those it has pairs of, and has forgotten.';
comment on table partition is 'Partitions whose pairs are in table pair. On a further server: copies, without stats; planning there means that the rows are final.';

-- Rights of the roles, where they exist; 004_roles.sql grants the same if it is run later.
do $$
declare
    name text;
begin
    for name in select rolname from pg_roles
                where rolname in ('laion_reader', 'laion_loader', 'laion_planner', 'laion_worker') loop
        execute format('grant select on this_server, database_server, range_home to %I', name);
        if name = 'laion_loader' then
            grant execute on function copy_partition(smallint, text, integer, integer, text, integer, integer) to laion_loader;
        elsif name = 'laion_planner' then
            grant update (stats) on partition to laion_planner;
        end if;
    end loop;
end
$$;
