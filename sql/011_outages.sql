-- An outage of the database costs no batch an attempt. While no worker can reach the queue, no lease can be extended, so
-- a lease that ends then says nothing about its worker or its batch: workers that are alive get the time to extend it
-- first, and a worker that takes the batch over after that does not use up an attempt.
--
-- The database alone cannot tell an outage from a crawl without workers. So a batch that ends the only worker of its crawl
-- is taken over at no cost, too, but not more often than queue.sql says: then it is parked like any other.

create table queue_contact (
    crawl_no    smallint    not null primary key references crawl on delete cascade,
    seen_at     timestamptz not null default now(),
    silent_from timestamptz not null default '-infinity',
    silent_to   timestamptz not null default '-infinity'
);
comment on table queue_contact is 'When the workers of a crawl reached its queue, and the last time that none did for half a lease.';
comment on column queue_contact.crawl_no is 'The crawl of the queue.';
comment on column queue_contact.seen_at is 'When a worker last claimed a batch or extended a lease, to an eighth of a lease.';
comment on column queue_contact.silent_from is 'When the last silence of all workers began; -infinity: there was none.';
comment on column queue_contact.silent_to is 'When it ended.';

alter table batch add column outages integer not null default 0;
comment on column batch.outages is 'Times that its lease ended while no worker reached the queue: these claims are not counted as attempts.';

-- Silences with less than a lease between them are one: what the first one cut off may not have been claimed yet.
create function note_queue_contact(of_crawl smallint, lease interval) returns void
language sql set search_path from current
begin atomic
    insert into queue_contact (crawl_no)
    select crawl_no from crawl
    where crawl_no = of_crawl and not exists (select from queue_contact where crawl_no = of_crawl)
    on conflict do nothing;
    update queue_contact
    set silent_from = case when seen_at > now() - lease / 2 or seen_at < silent_to + lease then silent_from else seen_at end,
        silent_to = case when seen_at > now() - lease / 2 then silent_to else now() end,
        seen_at = now()
    where crawl_no = (
        select crawl_no from queue_contact
        where crawl_no = of_crawl and seen_at < now() - lease / 8
        for update skip locked);  -- another worker notes it at this moment
end;
comment on function note_queue_contact(smallint, interval) is 'Notes that a worker has reached the queue of a crawl.';

-- A worker extends its lease each quarter of it: half a lease after the end of an outage all have done so.
create function queue_silence(of_crawl smallint, lease interval, out silent_from timestamptz, out silent_until timestamptz)
language sql stable set search_path from current
begin atomic
    select coalesce(max(case when is_silent and seen_at >= silent_to + lease then seen_at else silent_from end), '-infinity'),
           coalesce(max(case when is_silent then now() else silent_to end) + lease / 2, '-infinity')
    from (select *, seen_at <= now() - lease / 2 as is_silent from queue_contact where crawl_no = of_crawl) as contact;
end;
comment on function queue_silence(smallint, interval) is 'The last time that no worker reached the queue of a crawl, with half a lease for the workers to come back. A lease that ended within says nothing about its batch.';

do $$
begin
    if exists (select from pg_roles where rolname = 'laion_worker') then
        grant select, insert, update on queue_contact to laion_worker;
        grant update (outages) on batch to laion_worker;
    end if;
    if exists (select from pg_roles where rolname = 'laion_reader') then
        grant select on queue_contact to laion_reader;
    end if;
end
$$;
