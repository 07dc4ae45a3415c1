-- Progress at the cost of a few rows, whatever the number of batches.
--
-- Every thousand consecutive batch numbers of a crawl have one row of counters, batch_thousand. A batch that is added,
-- done, parked, reopened or deleted adds a row with the difference to batch_change, which roll_up_batches() moves to
-- batch_thousand: deleted there and added here in one statement, so it counts once. Progress is the sum of both tables,
-- read in one statement: exact at any moment, however batches are changed. Claims, heartbeats and releases write
-- neither; leases are counted by their partial index, and there are as many as workers.
--
-- Refused: updating the row of the thousand when a batch is done (64 workers then wait for each other's commit);
-- counting open thousands from their batches (one parked batch keeps a thousand open, so all may be); a scheduled
-- recount (someone has to run it, and between two runs it is wrong).

-- Counters of single batches and partitions -------------------------------------------------------------------------

alter table batch add column images integer, add column bytes bigint, add column cause text;
comment on column batch.images is 'Images in its shard, from stats; null before it is done, and if it was done before this column existed.';
comment on column batch.bytes is 'Bytes of its shard, from stats; null like images.';
comment on column batch.cause is 'error without what differs from batch to batch, if it is parked: equal for failures of one cause.';

alter table partition add column pairs_in bigint not null default 0, add column pairs_kept bigint not null default 0,
    add column dropped jsonb not null default '{}', add column parsed jsonb;
comment on column partition.pairs_in is 'Pairs of its file, from stats.';
comment on column partition.pairs_kept is 'Pairs that are rows of table pair, from stats.';
comment on column partition.dropped is 'Pairs that are not, by reason, from stats.';
comment on column partition.parsed is 'Counters of its parse: input, kept, dropped and records; null if an earlier version loaded it.';

create function stored_bytes(stats jsonb) returns bigint immutable parallel safe
language sql
return (select coalesce(sum((output ->> 'bytes')::bigint), 0) from jsonb_array_elements(stats -> 'outputs') as output);
comment on function stored_bytes(jsonb) is 'Bytes of the files that a stats record names.';

-- What laion_etl.core.causes.cause_of does.
create function failure_cause(error text) returns text immutable parallel safe
language sql
return left(trim(regexp_replace(regexp_replace(regexp_replace(lower(left(error, 2000)),
    '\y[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\y|\y[0-9a-f]{16,}\y', '#', 'g'),
    '(?<![0-9a-f])[a-f]*[0-9][0-9a-f]*(?:[.,:-][a-f]*[0-9][0-9a-f]*)*', '#', 'g'),
    '\s+', ' ', 'g')), 300);
comment on function failure_cause(text) is 'An error without numbers, digests and case, at most 300 characters.';

create function set_batch_counters() returns trigger language plpgsql as $$
begin
    new.images := (new.stats ->> 'kept')::integer;
    new.bytes := case when new.stats is not null then stored_bytes(new.stats) end;
    return new;
end
$$;
create trigger batch_counters before insert or update of stats on batch
for each row execute function set_batch_counters();

create function set_batch_cause() returns trigger language plpgsql as $$
begin
    new.cause := case when new.state = 'failed' then failure_cause(coalesce(new.error, '')) end;
    return new;
end
$$;
create trigger batch_cause before insert or update of state on batch
for each row when (new.state = 'failed' or new.cause is not null) execute function set_batch_cause();

create function set_partition_counters() returns trigger language plpgsql as $$
begin
    new.pairs_in := coalesce((new.stats ->> 'input')::bigint, 0);
    new.pairs_kept := coalesce((new.stats ->> 'kept')::bigint, 0);
    new.dropped := coalesce(new.stats -> 'dropped', '{}');
    return new;
end
$$;
update partition set pairs_in = coalesce((stats ->> 'input')::bigint, 0),
    pairs_kept = coalesce((stats ->> 'kept')::bigint, 0), dropped = coalesce(stats -> 'dropped', '{}');
create trigger partition_counters before insert or update of stats on partition
for each row execute function set_partition_counters();

update batch set cause = failure_cause(coalesce(error, '')) where state = 'failed';
create index batch_failed on batch (crawl_no, batch) where state = 'failed';
create index batch_failed_cause on batch (crawl_no, cause, updated_at) where state = 'failed';

-- Counters of thousands -----------------------------------------------------------------------------------------------

create table batch_thousand (
    crawl_no     smallint not null,
    thousand     bigint   not null,
    batches      bigint   not null,
    pairs        bigint   not null,
    done         bigint   not null,
    pairs_done   bigint   not null,
    failed       bigint   not null,
    pairs_failed bigint   not null,
    images       bigint   not null,
    bytes        bigint   not null,
    held_ms      bigint   not null,
    dropped      jsonb    not null,
    primary key (crawl_no, thousand)
);
comment on table batch_thousand is 'Counters of every thousand batch numbers of a crawl, without those still in batch_change.';
comment on column batch_thousand.crawl_no is 'The crawl of the batches.';
comment on column batch_thousand.thousand is 'Batch number divided by 1,000.';
comment on column batch_thousand.batches is 'Batches.';
comment on column batch_thousand.pairs is 'Pairs of the batches.';
comment on column batch_thousand.done is 'Batches that are done.';
comment on column batch_thousand.pairs_done is 'Pairs of batches that are done.';
comment on column batch_thousand.failed is 'Batches that are parked as failed.';
comment on column batch_thousand.pairs_failed is 'Pairs of batches that are parked.';
comment on column batch_thousand.images is 'Images of batches that are done.';
comment on column batch_thousand.bytes is 'Bytes of the shards of batches that are done.';
comment on column batch_thousand.held_ms is 'Milliseconds for which workers held the batches that are done, from the last claim on.';
comment on column batch_thousand.dropped is 'Links of batches that are done and gave no image, by reason.';

-- Rows come and go: vacuum keeps it short.
create table batch_change (like batch_thousand)
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table batch_change is 'Differences that roll_up_batches() has not added to batch_thousand yet; a counter may be negative.';
comment on column batch_change.crawl_no is 'The crawl of the batches.';
comment on column batch_change.thousand is 'Batch number divided by 1,000.';
comment on column batch_change.batches is 'Batches added or, negative, deleted; likewise below.';
comment on column batch_change.pairs is 'Pairs.';
comment on column batch_change.done is 'Batches done.';
comment on column batch_change.pairs_done is 'Pairs of batches done.';
comment on column batch_change.failed is 'Batches parked.';
comment on column batch_change.pairs_failed is 'Pairs of batches parked.';
comment on column batch_change.images is 'Images.';
comment on column batch_change.bytes is 'Bytes.';
comment on column batch_change.held_ms is 'Milliseconds.';
comment on column batch_change.dropped is 'Links by reason.';

create function add_counts(one jsonb, other jsonb) returns jsonb immutable parallel safe
language sql
return (
    select coalesce(jsonb_object_agg(reason, total), '{}')
    from (select reason, sum(number::bigint) as total
          from (select * from jsonb_each_text(one) union all select * from jsonb_each_text(other)) as each (reason, number)
          group by reason having sum(number::bigint) <> 0) as totals);
comment on function add_counts(jsonb, jsonb) is 'Sum of two objects of counts; reasons without a count are left out.';
create aggregate sum_counts(jsonb) (sfunc = add_counts, stype = jsonb, initcond = '{}', parallel = safe);
comment on aggregate sum_counts(jsonb) is 'Sum of objects of counts.';

create function negative_counts(counts jsonb) returns jsonb immutable parallel safe
language sql
return (select coalesce(jsonb_object_agg(reason, -number::bigint), '{}') from jsonb_each_text(counts) as each (reason, number));
comment on function negative_counts(jsonb) is 'An object of counts, each with the opposite sign.';

create function held_ms(claimed_at timestamptz, updated_at timestamptz) returns bigint immutable parallel safe
language sql
return coalesce((extract(epoch from updated_at - claimed_at) * 1000)::bigint, 0);
comment on function held_ms(timestamptz, timestamptz) is 'Milliseconds for which a worker held a batch that is done.';

create function note_batch_update() returns trigger
language plpgsql security definer set search_path from current as $$
declare
    was_done constant integer := (old.state = 'done')::integer;
    is_done constant integer := (new.state = 'done')::integer;
    was_failed constant integer := (old.state = 'failed')::integer;
    is_failed constant integer := (new.state = 'failed')::integer;
begin
    insert into batch_change
    select new.crawl_no, new.batch / 1000, 0, new.pairs - old.pairs,
           is_done - was_done, is_done * new.pairs - was_done * old.pairs,
           is_failed - was_failed, is_failed * new.pairs - was_failed * old.pairs,
           is_done * coalesce(new.images, (new.stats ->> 'kept')::integer, 0)
               - was_done * coalesce(old.images, (old.stats ->> 'kept')::integer, 0),
           is_done * coalesce(new.bytes, stored_bytes(new.stats), 0)
               - was_done * coalesce(old.bytes, stored_bytes(old.stats), 0),
           is_done * held_ms(new.claimed_at, new.updated_at) - was_done * held_ms(old.claimed_at, old.updated_at),
           add_counts(case when is_done = 1 then new.stats -> 'dropped' end,
                      case when was_done = 1 then negative_counts(old.stats -> 'dropped') end);
    return null;
end
$$;
create trigger batch_updated after update on batch
for each row when (old.state in ('done', 'failed') or new.state in ('done', 'failed'))
execute function note_batch_update();

create function note_batches() returns trigger
language plpgsql security definer set search_path from current as $$
declare
    sign constant integer := case tg_op when 'INSERT' then 1 else -1 end;
begin
    insert into batch_change
    select crawl_no, thousand, sign * batches, sign * counted.pairs, sign * done, sign * pairs_done, sign * failed,
           sign * pairs_failed, sign * counted.images, sign * counted.bytes, sign * counted.held_ms,
           case sign when 1 then coalesce(dropped, '{}') else negative_counts(coalesce(dropped, '{}')) end
    from (
        select crawl_no, batch / 1000 as thousand, count(*) as batches, sum(pairs) as pairs,
               count(*) filter (where state = 'done') as done,
               coalesce(sum(pairs) filter (where state = 'done'), 0) as pairs_done,
               count(*) filter (where state = 'failed') as failed,
               coalesce(sum(pairs) filter (where state = 'failed'), 0) as pairs_failed,
               coalesce(sum(coalesce(images, (stats ->> 'kept')::integer)) filter (where state = 'done'), 0) as images,
               coalesce(sum(coalesce(bytes, stored_bytes(stats))) filter (where state = 'done'), 0) as bytes,
               coalesce(sum(held_ms(claimed_at, updated_at)) filter (where state = 'done'), 0) as held_ms
        from changed group by 1, 2) as counted
    left join (
        select crawl_no, thousand, jsonb_object_agg(reason, number) as dropped
        from (select crawl_no, batch / 1000 as thousand, reason, sum(number::bigint) as number
              from changed cross join jsonb_each_text(stats -> 'dropped') as each (reason, number)
              where state = 'done' group by 1, 2, 3) as reasons
        group by 1, 2) as summed using (crawl_no, thousand);
    return null;
end
$$;
create trigger batch_inserted after insert on batch referencing new table as changed
for each statement execute function note_batches();
create trigger batch_deleted after delete on batch referencing old table as changed
for each statement execute function note_batches();

create function forget_batch_counts() returns trigger
language plpgsql security definer set search_path from current as $$
begin
    delete from batch_change;
    delete from batch_thousand;
    return null;
end
$$;
create trigger batch_truncated after truncate on batch
for each statement execute function forget_batch_counts();

-- Only one at a time: others need not wait, what they would move is moved already or the next time.
create function roll_up_batches(max_rows integer default 10000) returns bigint
language plpgsql security definer set search_path from current as $$
declare
    moved bigint;
begin
    if not pg_try_advisory_xact_lock(4190210085) then
        return 0;
    end if;
    with gone as (
        delete from batch_change where ctid = any (array(select ctid from batch_change limit max_rows)) returning *
    ), summed as (
        select crawl_no, thousand, sum(batches) as batches, sum(pairs) as pairs, sum(done) as done,
               sum(pairs_done) as pairs_done, sum(failed) as failed, sum(pairs_failed) as pairs_failed,
               sum(images) as images, sum(bytes) as bytes, sum(held_ms) as held_ms, sum_counts(dropped) as dropped
        from gone group by crawl_no, thousand
    ), added as (
        insert into batch_thousand as old select * from summed
        on conflict (crawl_no, thousand) do update set
            batches = old.batches + excluded.batches, pairs = old.pairs + excluded.pairs,
            done = old.done + excluded.done, pairs_done = old.pairs_done + excluded.pairs_done,
            failed = old.failed + excluded.failed, pairs_failed = old.pairs_failed + excluded.pairs_failed,
            images = old.images + excluded.images, bytes = old.bytes + excluded.bytes,
            held_ms = old.held_ms + excluded.held_ms, dropped = add_counts(old.dropped, excluded.dropped)
    )
    select count(*) into moved from gone;
    return moved;
end
$$;
comment on function roll_up_batches(integer) is 'Moves rows of batch_change into batch_thousand; returns how many. 0: none, or another program is doing it.';
revoke execute on function roll_up_batches(integer) from public;

-- All batches counted anew. Claims and completions wait for its end.
create function recount_batches() returns void language plpgsql as $$
begin
    lock table batch in share row exclusive mode;
    delete from batch_change;
    delete from batch_thousand;
    -- One thousand after the other, by the primary key: what is added up at once stays small.
    insert into batch_thousand
    select crawl_no, thousand, counted.*, coalesce(dropped, '{}')
    from (select distinct crawl_no, batch / 1000 as thousand from batch) as thousands
    cross join lateral (
        select count(*), sum(pairs), count(*) filter (where state = 'done'),
               coalesce(sum(pairs) filter (where state = 'done'), 0), count(*) filter (where state = 'failed'),
               coalesce(sum(pairs) filter (where state = 'failed'), 0),
               coalesce(sum(coalesce(images, (stats ->> 'kept')::integer)) filter (where state = 'done'), 0),
               coalesce(sum(coalesce(bytes, stored_bytes(stats))) filter (where state = 'done'), 0),
               coalesce(sum(held_ms(claimed_at, updated_at)) filter (where state = 'done'), 0)
        from batch
        where batch between thousand * 1000 and thousand * 1000 + 999 and batch.crawl_no = thousands.crawl_no
    ) as counted
    cross join lateral (
        select jsonb_object_agg(reason, number) as dropped
        from (select reason, sum(number::bigint) as number
              from batch cross join jsonb_each_text(stats -> 'dropped') as each (reason, number)
              where batch between thousand * 1000 and thousand * 1000 + 999 and batch.crawl_no = thousands.crawl_no
                and state = 'done'
              group by reason) as reasons
    ) as summed;
end
$$;
comment on function recount_batches() is 'Counts all batches anew, after rows were restored without their triggers. Workers wait for its end.';
revoke execute on function recount_batches() from public;

-- Batches that earlier versions made.
select recount_batches();

-- Views ---------------------------------------------------------------------------------------------------------------

create view batch_count as
select crawl_no, thousand, sum(batches)::bigint as batches, sum(pairs)::bigint as pairs, sum(done)::bigint as done,
       sum(pairs_done)::bigint as pairs_done, sum(failed)::bigint as failed, sum(pairs_failed)::bigint as pairs_failed,
       sum(images)::bigint as images, sum(bytes)::bigint as bytes, sum(held_ms)::bigint as held_ms
from (select * from batch_thousand union all select * from batch_change) as counts
group by crawl_no, thousand
having sum(batches) <> 0;
comment on view batch_count is 'Current counters of every thousand batch numbers of a crawl; without reasons, which batch_thousand and batch_change have.';

create or replace view load_progress as
select crawl,
       count(*) as partitions,
       count(*) filter (where planned) as planned,
       coalesce(sum(pairs_in), 0)::bigint as pairs_in,
       coalesce(sum(pairs_kept), 0)::bigint as pairs_kept,
       coalesce(sum((dropped ->> 'duplicate_in_partition')::bigint), 0)::bigint as duplicates_in_partition,
       coalesce(sum((dropped ->> 'duplicate_in_crawl')::bigint), 0)::bigint as duplicates_in_crawl,
       coalesce(sum((dropped ->> 'duplicate_of_earlier_crawl')::bigint), 0)::bigint as duplicates_of_earlier_crawls,
       count(*) filter (where loaded_at > now() - interval '15 minutes') * 4 as partitions_per_hour,
       max(loaded_at) as last_loaded_at
from partition join crawl using (crawl_no)
where fingerprint <> ''
group by crawl;

create or replace view queue_progress as
select crawl,
       batches,
       batches - done - failed - leased as ready,
       leased,
       silent,
       done,
       failed,
       pairs,
       pairs_done,
       pairs - pairs_done - pairs_failed as pairs_left,
       images,
       workers,
       pairs_per_hour,
       case when pairs_per_hour > 0 then
           make_interval(secs => 3600.0 * (pairs - pairs_done - pairs_failed) / pairs_per_hour)
       end as time_left,
       now() - oldest_claim as oldest_lease,
       (select max(updated_at) from batch where batch.crawl_no = crawl.crawl_no and state = 'done') as last_done_at
from crawl
join (
    select crawl_no, sum(batches)::bigint as batches, sum(pairs)::bigint as pairs, sum(done)::bigint as done,
           sum(pairs_done)::bigint as pairs_done, sum(failed)::bigint as failed,
           sum(pairs_failed)::bigint as pairs_failed, sum(images)::bigint as images
    from batch_count group by crawl_no
) as counted using (crawl_no)
cross join lateral (
    select count(*) as leased, count(*) filter (where lease_expires < now()) as silent,
           count(distinct lease_owner) as workers, min(claimed_at) as oldest_claim
    from batch where batch.crawl_no = crawl.crawl_no and state = 'leased'
) as leases
cross join lateral (
    -- Over the last 15 minutes, or since the first of them was claimed where that is less.
    select coalesce(3600.0 * sum(recent.pairs)
           / greatest(extract(epoch from now() - greatest(min(recent.claimed_at), now() - interval '15 minutes')), 1), 0)
           ::bigint as pairs_per_hour
    from batch as recent
    where recent.crawl_no = crawl.crawl_no and recent.state = 'done' and recent.updated_at > now() - interval '15 minutes'
) as rate;

create view failure as
select crawl, cause, count(*) as batches, max(updated_at) as last_at
from batch join crawl using (crawl_no)
where state = 'failed'
group by crawl, cause;
comment on view failure is 'Why batches are parked, and how many for each cause.';

-- Rights of the roles, where they exist; 004_roles.sql grants the same if it is run later. Every role may roll up: that
-- changes no number.
do $$
declare
    name text;
begin
    for name in select rolname from pg_roles
                where rolname in ('laion_reader', 'laion_loader', 'laion_planner', 'laion_worker') loop
        execute format('grant execute on function roll_up_batches(integer) to %I', name);
        if name <> 'laion_loader' then
            execute format('grant select on batch_thousand, batch_change, batch_count to %I', name);
        end if;
        if name = 'laion_reader' then
            grant select on failure to laion_reader;
        end if;
    end loop;
end
$$;
