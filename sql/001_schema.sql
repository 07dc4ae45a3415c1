-- The pairs seen, by crawl, and the queue of batches to download with their leases.
-- Outcomes of single images are in the shards' parquet; no row here is updated per image.

create table crawl (
    crawl_no smallint generated always as identity primary key,
    crawl    text not null unique
);
comment on table crawl is 'Crawls that have been loaded, numbered to keep pair rows small.';

create table partition (
    crawl_no    smallint not null references crawl,
    partition   integer  not null,
    fingerprint text     not null,
    planned     boolean  not null default false,
    stats       jsonb    not null,
    loaded_at   timestamptz not null default now(),
    primary key (crawl_no, partition)
);
comment on table partition is 'Partitions whose pairs are in table pair.';
comment on column partition.fingerprint is 'Settings and inputs of the load; the same one is never loaded twice.';
comment on column partition.planned is 'Its new pairs have been cut into batches: rows are final.';
comment on column partition.stats is 'The stats record of the load stage.';

create table pair (
    pair_id   uuid     not null primary key,
    crawl_no  smallint not null,
    partition integer  not null,
    url       text     not null,
    alt       text     not null,
    language  text     not null,
    license   text     not null,
    page_url  text     not null
) partition by hash (pair_id);
comment on table pair is 'Every distinct (image URL, caption) ever seen; the primary key is the dedupe, across all crawls.';
comment on column pair.pair_id is 'MD5 of url + alt (UTF-8), the original''s hash.';
comment on column pair.partition is 'The lowest partition of the crawl that holds the pair: independent of load order.';
comment on column pair.language is 'ISO 639 code from CLD3, empty when not reliable.';

do $$
begin
    for remainder in 0..15 loop
        execute format('create table pair_%s partition of pair for values with (modulus 16, remainder %s)',
                       to_char(remainder, 'FM00'), remainder);
    end loop;
end
$$;

create type batch_state as enum ('ready', 'leased', 'done', 'failed');

create table batch (
    batch         bigint      not null primary key,
    crawl_no      smallint    not null references crawl,
    pairs         integer     not null,
    file          jsonb       not null,
    state         batch_state not null default 'ready',
    attempts      integer     not null default 0,
    token         bigint      not null default 0,
    lease_owner   text,
    lease_expires timestamptz,
    stats         jsonb,
    error         text,
    updated_at    timestamptz not null default now()
);
create index batch_open on batch (crawl_no, batch) where state in ('ready', 'leased');
comment on table batch is 'The work queue of the downloaders; a batch is one shard.';
comment on column batch.file is 'Name, size and SHA-256 of the batch file in the store.';
comment on column batch.token is 'Fencing token: grows with every claim; results with an older one are refused.';
comment on column batch.stats is 'The stats record of the download stage.';
comment on column batch.error is 'Why the batch was parked as failed, or its last failure.';
