-- What download workers learn about hosts and share: rules of robots.txt and tdmrep.json, and hosts that do not answer; also
-- how many workers there are, so that they can divide the requests that a host may get.
--
-- Written only by note_hosts(), because a worker handles hostile input and may be compromised. A fact of one worker counts
-- for others only when another worker has confirmed it. For rules, which decide what may be fetched, that worker must have
-- another network address, which a worker cannot choose; for hosts that fail it may be any other worker: a mistake there
-- loses links for half an hour, and its cause, a broken network, affects one machine.
--
-- Unlogged: a cache. It is in no WAL and no replica, and empty after a crash of the server; then files are fetched again.

create unlogged table host_fact (
    origin    uuid        not null primary key,
    kind      smallint    not null check (kind between 1 and 3),
    content   bytea       not null check (octet_length(content) <= 4096),
    witness   uuid        not null,
    confirmed boolean     not null default false,
    expires   timestamptz not null
);
alter table host_fact alter column content set storage external;  -- it is compressed
create index host_fact_expires on host_fact (expires);
comment on table host_fact is 'What download workers found out about hosts, for at most a day. No host names, URLs or pages.';
comment on column host_fact.origin is 'Hash of scheme, host and port, and of the settings that the answers depend on.';
comment on column host_fact.kind is '1: rules of robots.txt and tdmrep.json; 2: robots.txt cannot be read now; 3: the host does not answer.';
comment on column host_fact.content is '1: the rules that concern our user agent, as compressed JSON; 2 and 3: the cause.';
comment on column host_fact.witness is 'Hash of the network address of the worker that said it last; of kinds 2 and 3 also of the worker.';
comment on column host_fact.confirmed is 'Two witnesses said the same. Otherwise it counts only for that witness.';
comment on column host_fact.expires is 'When it stops to count; then it is deleted.';

create function host_witness(worker text, kind smallint) returns uuid
language sql stable set search_path from current
return md5(coalesce(host(inet_client_addr()), 'local') || case when kind = 1 then '' else '/' || worker end)::uuid;
comment on function host_witness(text, smallint) is 'The witness of the client: its address, and for kinds 2 and 3 its name.';

create function note_hosts(worker text, origins uuid[], kinds smallint[], contents bytea[]) returns void
language sql security definer set search_path from current
begin atomic
    with own as materialized (
        select number::smallint as kind, host_witness(worker, number::smallint) as witness
        from generate_series(1, 3) as number)
    insert into host_fact as known (origin, kind, content, witness, expires)
    select origin, given.kind, content, own.witness,
           -- RFC 9309, 2.4: at most a day, with room for the batch that reads it last; not all at the same moment.
           now() + case given.kind when 1 then interval '20 hours' + random() * interval '2 hours'
                                   when 2 then interval '1 hour'
                                   else interval '30 minutes' end
    from unnest(origins, kinds, contents) as given (origin, kind, content) join own using (kind)
    order by origin  -- the same order in all transactions, so that no two wait for each other
    on conflict (origin) do update
    set kind = excluded.kind, content = excluded.content, witness = excluded.witness,
        confirmed = known.expires > now() and known.kind = excluded.kind and known.content = excluded.content,
        expires = case when known.expires > now() and known.kind = excluded.kind and known.content = excluded.content
                       then known.expires else excluded.expires end
    where known.expires <= now()
       or not known.confirmed
          and (known.witness, known.kind, known.content) <> (excluded.witness, excluded.kind, excluded.content);
end;
comment on function note_hosts(text, uuid[], smallint[], bytea[]) is 'Adds what a worker found out; what is confirmed stays as it is until it expires.';
revoke execute on function note_hosts(text, uuid[], smallint[], bytea[]) from public;

create function delete_expired_hosts(most integer) returns bigint
language sql security definer set search_path from current
begin atomic
    with gone as (
        delete from host_fact where origin in (
            select origin from host_fact where expires < now() order by expires limit most for update skip locked)
        returning 1)
    select count(*) from gone;
end;
comment on function delete_expired_hosts(integer) is 'Deletes some of the facts that have expired, oldest first; returns how many.';
revoke execute on function delete_expired_hosts(integer) from public;

create unlogged table live_downloader (
    worker  text        not null primary key check (octet_length(worker) <= 100),
    expires timestamptz not null
);
comment on table live_downloader is 'Download workers of all crawls that are at work: they share out the requests that a host gets.';
comment on column live_downloader.worker is 'A random name.';
comment on column live_downloader.expires is 'When it counts as ended unless it reports again.';

-- Rights of the roles, where they exist; 004_roles.sql grants the same if it is run later.
do $$
begin
    if exists (select from pg_roles where rolname = 'laion_worker') then
        grant select on host_fact to laion_worker;
        grant execute on function note_hosts(text, uuid[], smallint[], bytea[]), delete_expired_hosts(integer) to laion_worker;
        grant select, insert, update, delete on live_downloader to laion_worker;
    end if;
    if exists (select from pg_roles where rolname = 'laion_reader') then
        grant select on host_fact, live_downloader to laion_reader;
    end if;
end
$$;
