-- The last batches of a crawl are raced. A batch that its worker has held for much longer than is usual, when there is no
-- other work, is worked on by a second worker, too. The first of the two that is about to write its files takes the batch,
-- in one statement (queue.sql, hold); the other one stops, and counts nothing. A race costs no attempt.
--
-- The second worker has a token of its own from the beginning. It becomes that of the batch when it takes the batch, and
-- until then it is valid for nothing. Tokens are never given twice: a claim takes one above both.
--
-- Rules of robots.txt that one worker has read count for all when a second witness says the same. Until now a witness was a
-- network address. Behind PgBouncer or NAT all workers have one, and a worker that reaches several poolers has several. So
-- a login role can be a witness, too, whatever its address: that of a member of the role laion_witness, which only an
-- administrator can create and grant. A worker knows the password of one login, and session_user is what it logged in as.

alter table batch
    add column race_owner text,
    add column race_token bigint,
    add column race_expires timestamptz,
    add column race_began timestamptz;
comment on column batch.token is 'Fencing token: grows with every claim; results with another one are refused.';
comment on column batch.race_owner is 'The worker that races the one which holds the batch; null if none does.';
comment on column batch.race_token is 'Token of the last worker that began a race for the batch.';
comment on column batch.race_expires is 'When the race ends unless that worker reports again; null if there is none.';
comment on column batch.race_began is 'When the last race began, or the worker that has the batch began to write: the next one begins some time later.';

create or replace view lease as
select crawl, batch, attempts, lease_owner, now() - claimed_at as held_for, lease_expires - now() as left_for,
       case state when 'scoring' then 'score' else 'download' end as stage, race_owner
from batch join crawl using (crawl_no)
where state in ('downloading', 'scoring');
comment on view lease is 'Batches that workers hold; left_for below zero: the worker is silent and will lose it. race_owner: a second worker is at work on it.';

create or replace function host_witness(worker text, kind smallint) returns uuid
language sql stable set search_path from current
return md5((select case when exists (
                select from pg_auth_members
                where roleid = (select oid from pg_roles where rolname = 'laion_witness')
                  and member = (select oid from pg_roles where rolname = session_user))
            then 'login ' || session_user else coalesce(host(inet_client_addr()), 'local') end)
           || case when kind = 1 then '' else '/' || worker end)::uuid;
comment on function host_witness(text, smallint) is 'The witness of the client: its login role if that is a member of laion_witness, else its address; for kinds 2 and 3 also its name.';
comment on column host_fact.witness is 'Hash of the login role or network address of the worker that said it last; of kinds 2 and 3 also of the worker.';

-- Rights of the roles, where they exist; 004_roles.sql grants the same if it is run later.
do $$
begin
    if exists (select from pg_roles where rolname = 'laion_worker') then
        grant update (race_owner, race_token, race_expires, race_began) on batch to laion_worker;
    end if;
    if exists (select from pg_roles where rolname = 'laion_reader') then
        grant select on lease to laion_reader;
    end if;
end
$$;
