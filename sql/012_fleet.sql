-- One queue for two kinds of workers. A batch is ready, downloading, downloaded, scoring and at last scored, or parked with
-- its cause. Download workers claim ready batches, score workers claim downloaded ones, both under leases with the same
-- fencing token: it grows with every claim of either kind.
--
-- The enum of the states is replaced: a value added to an existing one cannot be used before the migration has committed.
-- That rewrites the table once; stop workers of an earlier version first, as they do not know the new states.
--
-- The results of a stage are counted from its own columns (stats, score_stats), so that claims by the other stage change no
-- counter. Batches that were done become downloaded: score workers recognise those already scored by their stats in the
-- store, and record them.

drop view failure, queue_progress, lease, failed_batch;
drop trigger batch_updated on batch;
drop trigger batch_cause on batch;
drop trigger batch_counters on batch;
drop trigger batch_inserted on batch;
drop trigger batch_deleted on batch;
drop function note_batch_update, note_batches, set_batch_counters, set_batch_cause;
drop index batch_done, batch_ready, batch_leased, batch_failed, batch_failed_cause;

-- States ----------------------------------------------------------------------------------------------------------------

alter type batch_state rename to batch_state_before;
create type batch_state as enum ('ready', 'downloading', 'downloaded', 'scoring', 'scored', 'parked');
alter table batch
    alter column state drop default,
    alter column state type batch_state using (
        case state::text when 'leased' then 'downloading' when 'done' then 'downloaded' when 'failed' then 'parked'
                         else state::text end::batch_state),
    alter column state set default 'ready',
    add column download_attempts integer not null default 0,
    add column downloaded_at timestamptz,
    add column download_ms bigint,
    add column score_stats jsonb,
    add column scored_at timestamptz,
    add column score_ms bigint,
    add column score_fingerprint text,
    add column scored_by text,
    add column raw_deleted boolean not null default false;
drop type batch_state_before;

update batch
set downloaded_at = case when state = 'downloaded' then updated_at end,
    download_ms = case when state = 'downloaded' then held_ms(claimed_at, updated_at) end,
    download_attempts = case when state = 'downloaded' then attempts else 0 end,
    attempts = case when state = 'downloaded' then 0 else attempts end,
    stats = case when state = 'downloaded' then stats end  -- those of a batch that is downloaded again are void
where state <> 'ready' or stats is not null;

comment on table batch is 'The work queue of download and score workers; a batch is one shard.';
comment on column batch.state is 'ready, downloading, downloaded, scoring, scored; or parked until an operator acts: its download failed if stats is null, else its scoring.';
comment on column batch.attempts is 'Claims so far in the stage it is in or waits for; released claims do not count.';
comment on column batch.download_attempts is 'Claims that its download took.';
comment on column batch.updated_at is 'Last change of state.';
comment on column batch.stats is 'The stats record of the download stage; null before it is downloaded.';
comment on column batch.downloaded_at is 'When stats was recorded.';
comment on column batch.download_ms is 'Milliseconds for which the worker that downloaded it held it; null if unknown.';
comment on column batch.score_stats is 'The stats record of the score stage; null before it is scored.';
comment on column batch.scored_at is 'When score_stats was recorded.';
comment on column batch.score_ms is 'Milliseconds for which the worker that scored it held it; null if unknown.';
comment on column batch.score_fingerprint is 'The fingerprint of score_stats.';
comment on column batch.scored_by is 'The fingerprint of the model and settings that scored it; null if it has no samples, or is not scored.';
comment on column batch.raw_deleted is 'The tar of its raw shard was deleted after it was scored.';
comment on column batch.images is 'Images in its shard, from stats.';
comment on column batch.bytes is 'Bytes of its shard, from stats.';

create index batch_ready on batch (crawl_no, batch) where state = 'ready';
create index batch_downloading on batch (crawl_no, lease_expires) where state = 'downloading';
create index batch_downloaded on batch (crawl_no, batch) where state = 'downloaded';
create index batch_scoring on batch (crawl_no, lease_expires) where state = 'scoring';
create index batch_scored on batch (crawl_no, scored_at) where state = 'scored';
-- What each score worker asks for when it begins and ends is answered without the rows, whose stats are long.
create index batch_scores on batch (crawl_no, batch) include (score_fingerprint) where state = 'scored';
create index batch_scored_by on batch (crawl_no, scored_by) include (raw_deleted) where state = 'scored';
create index batch_raw_shard on batch (crawl_no, batch) where state = 'scored' and not raw_deleted;
create index batch_download_ends on batch (crawl_no, downloaded_at) where downloaded_at is not null;
create index batch_parked on batch (crawl_no, batch) where state = 'parked';
create index batch_parked_cause on batch (crawl_no, cause, updated_at) where state = 'parked';

-- Columns derived from the stats are set in the statement that records them.
create function set_download_counters() returns trigger language plpgsql as $$
begin
    new.images := (new.stats ->> 'kept')::integer;
    new.bytes := case when new.stats is not null then stored_bytes(new.stats) end;
    if tg_op = 'INSERT' or (new.stats is null) <> (old.stats is null) or new.state = 'downloaded' and old.state <> 'downloaded' then
        new.downloaded_at := case when new.stats is not null then new.updated_at end;
        new.download_ms := case when new.stats is not null and new.claimed_at is not null
                                then held_ms(new.claimed_at, new.updated_at) end;
    end if;
    return new;
end
$$;
create trigger batch_download_counters before insert or update of stats on batch
for each row execute function set_download_counters();

create function set_score_counters() returns trigger language plpgsql as $$
begin
    new.score_fingerprint := new.score_stats ->> 'fingerprint';
    new.scored_by := case when (new.score_stats ->> 'input')::integer > 0
                          then coalesce(new.score_stats -> 'details' ->> 'scored_by', '') end;
    if tg_op = 'INSERT' or (new.score_stats is null) <> (old.score_stats is null) or new.state = 'scored' and old.state <> 'scored' then
        new.scored_at := case when new.score_stats is not null then new.updated_at end;
        new.score_ms := case when new.score_stats is not null and new.claimed_at is not null
                             then held_ms(new.claimed_at, new.updated_at) end;
    end if;
    return new;
end
$$;
create trigger batch_score_counters before insert or update of score_stats on batch
for each row execute function set_score_counters();

create function set_batch_cause() returns trigger language plpgsql as $$
begin
    new.cause := case when new.state = 'parked' then failure_cause(coalesce(new.error, '')) end;
    return new;
end
$$;
create trigger batch_cause before insert or update of state on batch
for each row when (new.state = 'parked' or new.cause is not null) execute function set_batch_cause();

-- Counters of thousands -------------------------------------------------------------------------------------------------

alter table batch_thousand
    add column scored bigint not null default 0,
    add column score_failed bigint not null default 0,
    add column samples bigint not null default 0,
    add column samples_kept bigint not null default 0,
    add column score_ms bigint not null default 0,
    add column raw_deleted bigint not null default 0,
    add column score_dropped jsonb not null default '{}';
alter table batch_change
    add column scored bigint not null default 0,
    add column score_failed bigint not null default 0,
    add column samples bigint not null default 0,
    add column samples_kept bigint not null default 0,
    add column score_ms bigint not null default 0,
    add column raw_deleted bigint not null default 0,
    add column score_dropped jsonb not null default '{}';
comment on column batch_thousand.done is 'Batches that are downloaded, also those that are scored since.';
comment on column batch_thousand.pairs_done is 'Pairs of batches that are downloaded.';
comment on column batch_thousand.failed is 'Batches that are parked because their download failed.';
comment on column batch_thousand.pairs_failed is 'Pairs of batches whose download failed.';
comment on column batch_thousand.images is 'Images of batches that are downloaded.';
comment on column batch_thousand.bytes is 'Bytes of the shards of batches that are downloaded.';
comment on column batch_thousand.held_ms is 'Milliseconds for which workers held the batches that they downloaded.';
comment on column batch_thousand.dropped is 'Links of downloaded batches that gave no image, by reason.';
comment on column batch_thousand.scored is 'Batches that are scored.';
comment on column batch_thousand.score_failed is 'Batches that are parked because they could not be scored.';
comment on column batch_thousand.samples is 'Samples of scored batches.';
comment on column batch_thousand.samples_kept is 'Samples that scoring kept.';
comment on column batch_thousand.score_ms is 'Milliseconds for which workers held the batches that they scored.';
comment on column batch_thousand.raw_deleted is 'Batches whose raw shard was deleted after they were scored.';
comment on column batch_thousand.score_dropped is 'Samples that scoring dropped, by reason.';
comment on column batch_change.scored is 'Batches scored.';
comment on column batch_change.score_failed is 'Batches that could not be scored.';
comment on column batch_change.samples is 'Samples.';
comment on column batch_change.samples_kept is 'Samples kept.';
comment on column batch_change.score_ms is 'Milliseconds.';
comment on column batch_change.raw_deleted is 'Raw shards deleted.';
comment on column batch_change.score_dropped is 'Samples by reason.';

-- What a batch adds to the row of its thousand, in the order of the columns there.
create function counters_of(one batch) returns table (
    batches integer, pairs integer, done integer, pairs_done integer, failed integer, pairs_failed integer, images integer,
    bytes bigint, held_ms bigint, dropped jsonb, scored integer, score_failed integer, samples integer,
    samples_kept integer, score_ms bigint, raw_deleted integer, score_dropped jsonb) stable
language sql
begin atomic
    select 1, (one).pairs, is_done, is_done * (one).pairs, failed, failed * (one).pairs,
           is_done * coalesce((one).images, ((one).stats ->> 'kept')::integer, 0),
           is_done * coalesce((one).bytes, stored_bytes((one).stats), 0), is_done * coalesce((one).download_ms, 0),
           case when is_done = 1 then coalesce((one).stats -> 'dropped', '{}') else '{}' end,
           scored, score_failed, scored * coalesce(((one).score_stats ->> 'input')::integer, 0),
           scored * coalesce(((one).score_stats ->> 'kept')::integer, 0), scored * coalesce((one).score_ms, 0),
           scored * (one).raw_deleted::integer,
           case when scored = 1 then coalesce((one).score_stats -> 'dropped', '{}') else '{}' end
    from (select ((one).state in ('downloaded', 'scoring', 'scored')
                  or (one).state = 'parked' and (one).stats is not null)::integer as is_done,
                 ((one).state = 'parked' and (one).stats is null)::integer as failed,
                 ((one).state = 'parked' and (one).stats is not null)::integer as score_failed,
                 ((one).state = 'scored')::integer as scored) as states;
end;
comment on function counters_of(batch) is 'What a batch adds to the counters of its thousand.';

create function note_batch_update() returns trigger
language plpgsql security definer set search_path from current as $$
begin
    insert into batch_change
    select new.crawl_no, new.batch / 1000, 0, n.pairs - o.pairs, n.done - o.done, n.pairs_done - o.pairs_done,
           n.failed - o.failed, n.pairs_failed - o.pairs_failed, n.images - o.images, n.bytes - o.bytes,
           n.held_ms - o.held_ms,
           case when o.dropped = '{}' then n.dropped else add_counts(n.dropped, negative_counts(o.dropped)) end, n.scored - o.scored,
           n.score_failed - o.score_failed, n.samples - o.samples, n.samples_kept - o.samples_kept,
           n.score_ms - o.score_ms, n.raw_deleted - o.raw_deleted,
           case when o.score_dropped = '{}' then n.score_dropped
                else add_counts(n.score_dropped, negative_counts(o.score_dropped)) end
    from counters_of(new) as n, counters_of(old) as o;
    return null;
end
$$;
-- Claims, heartbeats and releases of either stage change no counter.
create trigger batch_updated after update on batch
for each row when (
    not (old.state in ('ready', 'downloading') and new.state in ('ready', 'downloading'))
    and not (old.state in ('downloaded', 'scoring') and new.state in ('downloaded', 'scoring')
             and (old.downloaded_at, old.download_ms, old.images, old.bytes, old.pairs)
                 is not distinct from (new.downloaded_at, new.download_ms, new.images, new.bytes, new.pairs)))
execute function note_batch_update();

create function note_batches() returns trigger
language plpgsql security definer set search_path from current as $$
declare
    sign constant integer := case tg_op when 'INSERT' then 1 else -1 end;
begin
    insert into batch_change
    select crawl_no, thousand, sign * batches, sign * counted.pairs, sign * done, sign * pairs_done, sign * failed,
           sign * pairs_failed, sign * counted.images, sign * counted.bytes, sign * held_ms,
           case sign when 1 then coalesce(dropped, '{}') else negative_counts(coalesce(dropped, '{}')) end,
           sign * scored, sign * score_failed, sign * samples, sign * samples_kept, sign * score_ms, sign * raw_deleted,
           case sign when 1 then coalesce(score_dropped, '{}') else negative_counts(coalesce(score_dropped, '{}')) end
    from (
        select crawl_no, batch / 1000 as thousand, sum(c.batches) as batches, sum(c.pairs) as pairs, sum(c.done) as done,
               sum(c.pairs_done) as pairs_done, sum(c.failed) as failed, sum(c.pairs_failed) as pairs_failed,
               sum(c.images) as images, sum(c.bytes) as bytes, sum(c.held_ms) as held_ms, sum(c.scored) as scored,
               sum(c.score_failed) as score_failed, sum(c.samples) as samples, sum(c.samples_kept) as samples_kept,
               sum(c.score_ms) as score_ms, sum(c.raw_deleted) as raw_deleted
        from changed cross join lateral counters_of(row(changed.*)::batch) as c
        group by 1, 2
    ) as counted
    left join (
        select crawl_no, thousand, jsonb_object_agg(reason, number) filter (where stage = 'download') as dropped,
               jsonb_object_agg(reason, number) filter (where stage = 'score') as score_dropped
        from (
            select crawl_no, batch / 1000 as thousand, 'download' as stage, reason, sum(number::bigint) as number
            from changed cross join jsonb_each_text(stats -> 'dropped') as each (reason, number)
            where state in ('downloaded', 'scoring', 'scored', 'parked')
            group by 1, 2, 3, 4
            union all
            select crawl_no, batch / 1000, 'score', reason, sum(number::bigint)
            from changed cross join jsonb_each_text(score_stats -> 'dropped') as each (reason, number)
            where state = 'scored'
            group by 1, 2, 3, 4
        ) as reasons
        group by 1, 2
    ) as summed using (crawl_no, thousand);
    return null;
end
$$;
create trigger batch_inserted after insert on batch referencing new table as changed
for each statement execute function note_batches();
create trigger batch_deleted after delete on batch referencing old table as changed
for each statement execute function note_batches();

create or replace function roll_up_batches(max_rows integer default 10000) returns bigint
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
        select crawl_no, thousand, sum(batches), sum(pairs), sum(done), sum(pairs_done), sum(failed), sum(pairs_failed),
               sum(images), sum(bytes), sum(held_ms), coalesce(sum_counts(dropped) filter (where dropped <> '{}'), '{}'),
               sum(scored), sum(score_failed), sum(samples), sum(samples_kept), sum(score_ms), sum(raw_deleted),
               coalesce(sum_counts(score_dropped) filter (where score_dropped <> '{}'), '{}')
        from gone group by crawl_no, thousand
    ), added as (
        insert into batch_thousand as old select * from summed
        on conflict (crawl_no, thousand) do update set
            batches = old.batches + excluded.batches, pairs = old.pairs + excluded.pairs,
            done = old.done + excluded.done, pairs_done = old.pairs_done + excluded.pairs_done,
            failed = old.failed + excluded.failed, pairs_failed = old.pairs_failed + excluded.pairs_failed,
            images = old.images + excluded.images, bytes = old.bytes + excluded.bytes,
            held_ms = old.held_ms + excluded.held_ms, dropped = add_counts(old.dropped, excluded.dropped),
            scored = old.scored + excluded.scored, score_failed = old.score_failed + excluded.score_failed,
            samples = old.samples + excluded.samples, samples_kept = old.samples_kept + excluded.samples_kept,
            score_ms = old.score_ms + excluded.score_ms, raw_deleted = old.raw_deleted + excluded.raw_deleted,
            score_dropped = add_counts(old.score_dropped, excluded.score_dropped)
    )
    select count(*) into moved from gone;
    return moved;
end
$$;

create or replace function recount_batches() returns void language plpgsql as $$
begin
    lock table batch in share row exclusive mode;
    delete from batch_change;
    delete from batch_thousand;
    -- One thousand after another, by the primary key, so that each sum is over few rows.
    insert into batch_thousand
    select crawl_no, thousand, batches, pairs, done, pairs_done, failed, pairs_failed, images, bytes, held_ms,
           coalesce(dropped, '{}'), scored, score_failed, samples, samples_kept, score_ms, raw_deleted,
           coalesce(score_dropped, '{}')
    from (select distinct crawl_no, batch / 1000 as thousand from batch) as thousands
    cross join lateral (
        select sum(c.batches) as batches, sum(c.pairs) as pairs, sum(c.done) as done, sum(c.pairs_done) as pairs_done,
               sum(c.failed) as failed, sum(c.pairs_failed) as pairs_failed, sum(c.images) as images,
               sum(c.bytes) as bytes, sum(c.held_ms) as held_ms, sum(c.scored) as scored,
               sum(c.score_failed) as score_failed, sum(c.samples) as samples, sum(c.samples_kept) as samples_kept,
               sum(c.score_ms) as score_ms, sum(c.raw_deleted) as raw_deleted
        from batch as one cross join lateral counters_of(one) as c
        where one.batch between thousand * 1000 and thousand * 1000 + 999 and one.crawl_no = thousands.crawl_no
    ) as counted
    cross join lateral (
        select jsonb_object_agg(reason, number) filter (where stage = 'download') as dropped,
               jsonb_object_agg(reason, number) filter (where stage = 'score') as score_dropped
        from (
            select 'download' as stage, reason, sum(number::bigint) as number
            from batch cross join jsonb_each_text(stats -> 'dropped') as each (reason, number)
            where batch between thousand * 1000 and thousand * 1000 + 999 and batch.crawl_no = thousands.crawl_no
              and state in ('downloaded', 'scoring', 'scored', 'parked')
            group by 2
            union all
            select 'score', reason, sum(number::bigint)
            from batch cross join jsonb_each_text(score_stats -> 'dropped') as each (reason, number)
            where batch between thousand * 1000 and thousand * 1000 + 999 and batch.crawl_no = thousands.crawl_no
              and state = 'scored'
            group by 2
        ) as reasons
    ) as summed;
end
$$;

-- Views -----------------------------------------------------------------------------------------------------------------

create or replace view batch_count as
select crawl_no, thousand, sum(batches)::bigint as batches, sum(pairs)::bigint as pairs, sum(done)::bigint as done,
       sum(pairs_done)::bigint as pairs_done, sum(failed)::bigint as failed, sum(pairs_failed)::bigint as pairs_failed,
       sum(images)::bigint as images, sum(bytes)::bigint as bytes, sum(held_ms)::bigint as held_ms,
       sum(scored)::bigint as scored, sum(score_failed)::bigint as score_failed, sum(samples)::bigint as samples,
       sum(samples_kept)::bigint as samples_kept, sum(score_ms)::bigint as score_ms,
       sum(raw_deleted)::bigint as raw_deleted
from (select * from batch_thousand union all select * from batch_change) as counts
group by crawl_no, thousand
having sum(batches) <> 0;

create view queue_depth as
select crawl, batches - done - failed - downloading + lost_downloads as to_download, downloading - lost_downloads as downloading,
       done - scored - score_failed - scoring + lost_scores as to_score, scoring - lost_scores as scoring
from crawl
join (
    select crawl_no, sum(batches)::bigint as batches, sum(done)::bigint as done, sum(failed)::bigint as failed,
           sum(scored)::bigint as scored, sum(score_failed)::bigint as score_failed
    from batch_count group by crawl_no
) as counted using (crawl_no)
cross join lateral (
    select count(*) as downloading, count(*) filter (where lease_expires < now()) as lost_downloads
    from batch where batch.crawl_no = crawl.crawl_no and state = 'downloading'
) as downloads
cross join lateral (
    select count(*) as scoring, count(*) filter (where lease_expires < now()) as lost_scores
    from batch where batch.crawl_no = crawl.crawl_no and state = 'scoring'
) as scores;
comment on view queue_depth is 'Per crawl: batches that a download or a score worker could claim now, and those that are being worked on. Costs the same for any number of batches.';

create view queue_progress as
select crawl,
       batches,
       batches - done - failed - downloading as ready,
       downloading,
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
       (select max(downloaded_at) from batch where batch.crawl_no = crawl.crawl_no and downloaded_at is not null)
           as last_done_at,
       done - scored - score_failed - scoring as to_score,
       scoring,
       silent_scorers,
       scored,
       score_failed,
       scorers,
       samples_per_hour,
       case when samples_per_hour > 0 then
           make_interval(secs => 3600.0 * greatest(images - samples, 0) / samples_per_hour)
       end as score_time_left,
       (select max(scored_at) from batch where batch.crawl_no = crawl.crawl_no and state = 'scored') as last_scored_at,
       raw_deleted
from crawl
join (
    select crawl_no, sum(batches)::bigint as batches, sum(pairs)::bigint as pairs, sum(done)::bigint as done,
           sum(pairs_done)::bigint as pairs_done, sum(failed)::bigint as failed,
           sum(pairs_failed)::bigint as pairs_failed, sum(images)::bigint as images, sum(scored)::bigint as scored,
           sum(score_failed)::bigint as score_failed, sum(samples)::bigint as samples,
           sum(raw_deleted)::bigint as raw_deleted
    from batch_count group by crawl_no
) as counted using (crawl_no)
cross join lateral (
    select count(*) as downloading, count(*) filter (where lease_expires < now()) as silent,
           count(distinct lease_owner) as workers, min(claimed_at) as oldest_claim
    from batch where batch.crawl_no = crawl.crawl_no and state = 'downloading'
) as leases
cross join lateral (
    select count(*) as scoring, count(*) filter (where lease_expires < now()) as silent_scorers,
           count(distinct lease_owner) as scorers
    from batch where batch.crawl_no = crawl.crawl_no and state = 'scoring'
) as score_leases
cross join lateral (
    -- Over the last 15 minutes, or since the first of them was claimed if that is less.
    select coalesce(3600.0 * sum(recent.pairs)
           / greatest(extract(epoch from now() - greatest(
                 min(recent.downloaded_at - make_interval(secs => recent.download_ms / 1000.0)), now() - interval '15 minutes')), 1), 0)
           ::bigint as pairs_per_hour
    from batch as recent
    where recent.crawl_no = crawl.crawl_no and recent.downloaded_at > now() - interval '15 minutes'
) as rate
cross join lateral (
    select coalesce(3600.0 * sum((recent.score_stats ->> 'input')::bigint)
           / greatest(extract(epoch from now() - greatest(
                 min(recent.scored_at - make_interval(secs => recent.score_ms / 1000.0)), now() - interval '15 minutes')), 1), 0)
           ::bigint as samples_per_hour
    from batch as recent
    where recent.crawl_no = crawl.crawl_no and recent.state = 'scored' and recent.scored_at > now() - interval '15 minutes'
) as score_rate;
comment on view queue_progress is 'Per crawl: batches by state, rates and times left. silent, silent_scorers: held, but the lease ran out.';

create view lease as
select crawl, batch, attempts, lease_owner, now() - claimed_at as held_for, lease_expires - now() as left_for,
       case state when 'scoring' then 'score' else 'download' end as stage
from batch join crawl using (crawl_no)
where state in ('downloading', 'scoring');
comment on view lease is 'Batches that workers hold; left_for below zero: the worker is silent and will lose it.';

create view failed_batch as
select crawl, batch, pairs, attempts, error, updated_at as failed_at,
       case when stats is null then 'download' else 'score' end as stage
from batch join crawl using (crawl_no)
where state = 'parked';
comment on view failed_batch is 'Batches parked with their error; `laion-etl db requeue --crawl C` brings them back to the stage that failed.';

create view failure as
select crawl, cause, count(*) as batches, max(updated_at) as last_at,
       case when bool_and(stats is null) then 'download' when bool_and(stats is not null) then 'score'
            else 'download, score' end as stage
from batch join crawl using (crawl_no)
where state = 'parked'
group by crawl, cause;
comment on view failure is 'Why batches are parked, and how many for each cause.';

-- Rights of the roles, where they exist; 004_roles.sql grants the same if it is run later.
do $$
begin
    if exists (select from pg_roles where rolname = 'laion_reader') then
        grant select on queue_depth, queue_progress, lease, failed_batch, failure to laion_reader;
    end if;
    if exists (select from pg_roles where rolname = 'laion_worker') then
        grant select on queue_depth to laion_worker;
        grant update (download_attempts, score_stats, raw_deleted) on batch to laion_worker;
    end if;
end
$$;

select recount_batches();
