-- Pairs take less space and load faster: each page is stored once for all its pairs, crawl and partition are one
-- number, and the table is partitioned by ranges of the hash instead of by a hash of the hash, so that rows in
-- the order of pair_id fill one leaf after the other (measurements: docs/scaling-postgres.md).

alter table partition add column partition_no integer generated always as identity unique;
comment on column partition.fingerprint is 'Settings and inputs of the load; the same one is never loaded twice. Empty: a load is running or was interrupted.';
comment on column partition.partition_no is 'Short name of (crawl_no, partition) in tables page and pair.';

create table dedupe_rule (
    rule text not null check (rule in ('pair', 'url')),
    is_only boolean not null default true primary key check (is_only)
);
comment on table dedupe_rule is 'What makes two pairs the same in this database; set by the first load, one row.';
comment on column dedupe_rule.rule is 'pair: URL and caption, the original''s rule; url: the URL alone, the best caption is kept.';
comment on column dedupe_rule.is_only is 'Always true: there is one rule.';

create table page (
    partition_no integer not null,
    page_no      integer not null,
    url          text    not null,
    license      text    not null,
    primary key (partition_no, page_no)
) partition by hash (partition_no);
comment on table page is 'Pages that have a row in table pair.';
comment on column page.partition_no is 'The partition that holds the page.';
comment on column page.page_no is 'Counts the pages of a partition in the order of its pairs file.';
comment on column page.url is 'Page URL.';
comment on column page.license is 'Creative Commons licence URL seen on the page, or ?.';

create temporary table pair_before on commit drop as select * from pair;
drop table pair;

create table pair (
    partition_no integer not null,
    page_no      integer not null,
    pair_id      uuid    not null primary key,
    url          text    not null,
    alt          text    not null,
    language     text    not null
) partition by range (pair_id);
comment on table pair is 'Every distinct pair ever seen, across all crawls; the primary key is the dedupe. Empty URL: only its key is kept.';
comment on column pair.partition_no is 'The partition it belongs to: the lowest of its crawl that holds it, whatever the load order.';
comment on column pair.page_no is 'The page it was found on, with partition_no a key of table page.';
comment on column pair.pair_id is 'MD5 of url + alt (UTF-8), the original''s hash; MD5 of url where the dedupe rule is url.';
comment on column pair.url is 'Image URL.';
comment on column pair.alt is 'Caption.';
comment on column pair.language is 'ISO 639 code, empty when not reliable.';

-- Leaves are equal ranges of the first 32 bits; laion_etl.pair_leaves is set by the migration runner.
--
-- Rows are inserted by the million and then read by key or by partition: vacuum has nothing to do before some are
-- deleted, and query plans do not depend on the counts. So inserts alone start neither vacuum nor analyze, whose
-- reads and writes would slow the loaders down (docs/scaling-postgres.md).
do $$
declare
    calm constant text := 'with (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 1)';
    leaves constant integer := coalesce(nullif(current_setting('laion_etl.pair_leaves', true), ''), '16');
    bound_of constant text := '%s-0000-0000-0000-000000000000';
    lower text := 'minvalue';
    upper text;
begin
    for leaf in 0..leaves - 1 loop
        upper := case when leaf = leaves - 1 then 'maxvalue' else
            quote_literal(format(bound_of, lpad(to_hex((leaf + 1) * 4294967296 / leaves), 8, '0'))) end;
        execute format('create table pair_%s partition of pair for values from (%s) to (%s) %s',
                       to_char(leaf, 'FM000'), lower, upper, calm);
        lower := upper;
    end loop;
    for remainder in 0..15 loop
        execute format('create table page_%s partition of page for values with (modulus 16, remainder %s) %s',
                       to_char(remainder, 'FM00'), remainder, calm);
    end loop;
end
$$;

-- A partition is loaded at once, so its rows are stored together: a BRIN index finds them with a few bytes per
-- thousand rows, once the new ones are summarized, which only an owner of the index may do.
create index pair_of_partition on pair using brin (partition_no) with (pages_per_range = 32);

create function summarize_new_pairs() returns bigint
language sql security definer set search_path from current
return (
    select sum(brin_summarize_new_values(inhrelid))
    from pg_inherits where inhparent = 'pair_of_partition'::regclass);
comment on function summarize_new_pairs() is 'To be called before rows are looked up by partition: adds the new ones to index pair_of_partition. Returns ranges of pages.';
revoke execute on function summarize_new_pairs() from public;

-- Rows that an earlier version had loaded.
create temporary table page_before on commit drop as
select partition_no, page_url, license,
       row_number() over (partition by partition_no order by page_url, license) - 1 as page_no
from (select distinct partition_no, page_url, license
      from pair_before join partition using (crawl_no, partition)) as pages;

insert into page (partition_no, page_no, url, license)
select partition_no, page_no, page_url, license from page_before;

insert into pair (partition_no, page_no, pair_id, url, alt, language)
select partition_no, page_no, pair_id, url, alt, language
from pair_before
join partition using (crawl_no, partition)
join page_before using (partition_no, page_url, license)
order by pair_id;

insert into dedupe_rule (rule) select 'pair' where exists (select from pair);

-- The queue records how long a batch takes.
alter table batch add column claimed_at timestamptz;
comment on column batch.batch is 'Number of the batch and of its shard, over all crawls.';
comment on column batch.crawl_no is 'The crawl of its pairs.';
comment on column batch.pairs is 'Pairs in the batch.';
comment on column batch.state is 'ready, leased by a worker, done, or failed: parked until an operator acts.';
comment on column batch.attempts is 'Claims so far; released claims do not count.';
comment on column batch.lease_owner is 'The worker that holds it: host:process:claims.';
comment on column batch.lease_expires is 'A worker that sends no heartbeat until then loses the batch.';
comment on column batch.updated_at is 'Last change of state: of a done batch, when it was done.';
comment on column batch.claimed_at is 'When it was last claimed.';
comment on column crawl.crawl_no is 'Short name of the crawl.';
comment on column crawl.crawl is 'Crawl id, for example CC-MAIN-2024-38.';
comment on column partition.crawl_no is 'The crawl it is a part of.';
comment on column partition.partition is 'Number of the partition in its crawl.';
comment on column partition.loaded_at is 'When it was last loaded.';
comment on table schema_migration is 'The numbered files of sql/ that have been applied to this database.';
comment on column schema_migration.name is 'File name without ending.';
comment on column schema_migration.applied_at is 'When it was applied.';
create index batch_done on batch (crawl_no, updated_at) where state = 'done';
create index batch_ready on batch (crawl_no, batch) where state = 'ready';
create index batch_leased on batch (crawl_no, lease_expires) where state = 'leased';
drop index batch_open;
