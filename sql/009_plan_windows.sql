-- A plan is made window by window of the key space, by several planners side by side. What each window is, is decided when a
-- round of planning begins; so the batches do not depend on who plans it, how often it was killed, and in which order.
--
-- If roles are added later (004_roles.sql), have an administrator run this file, too: it may be run again.

create table if not exists plan_round (
    crawl_no    smallint not null references crawl,
    round       integer  not null,
    pairs       bigint   not null,
    fingerprint text     not null,
    done        boolean  not null default false,
    begun_at    timestamptz not null default now(),
    primary key (crawl_no, round)
);
comment on table plan_round is 'Rounds of planning: the new pairs of a crawl, cut into batches. One at most of a crawl is not done.';
comment on column plan_round.crawl_no is 'The crawl.';
comment on column plan_round.round is 'Counts the rounds of a crawl from 1; 0 is what versions without windows planned.';
comment on column plan_round.pairs is 'New pairs of its partitions.';
comment on column plan_round.fingerprint is 'Of its partitions and settings; it is in the names of the files that planners leave in the store.';
comment on column plan_round.done is 'All its windows are done, and its partitions planned.';
comment on column plan_round.begun_at is 'When its windows were decided.';

create table if not exists plan_window (
    crawl_no    smallint not null,
    round       integer  not null,
    window_no   integer  not null,
    first_key   uuid,
    last_key    uuid,
    first_batch bigint   not null,
    last_batch  bigint   not null,
    done        boolean  not null default false,
    pairs       integer,
    batches     integer,
    numbers     jsonb,
    file        jsonb,
    done_at     timestamptz,
    primary key (crawl_no, round, window_no),
    foreign key (crawl_no, round) references plan_round
);
comment on table plan_window is 'Windows of a round: slices of the key space that are cut into batches one by one.';
comment on column plan_window.crawl_no is 'The crawl.';
comment on column plan_window.round is 'The round.';
comment on column plan_window.window_no is 'Counts the windows of a round from 0, by key.';
comment on column plan_window.first_key is 'Its first pair_id; null in round 0.';
comment on column plan_window.last_key is 'Its last pair_id; null in round 0.';
comment on column plan_window.first_batch is 'First of the numbers reserved for its batches; one whose pairs had a number before keeps that.';
comment on column plan_window.last_batch is 'Last of the numbers reserved for its batches.';
comment on column plan_window.done is 'Its batches are in the queue.';
comment on column plan_window.pairs is 'Its new pairs, once it is done.';
comment on column plan_window.batches is 'Its batches, once it is done.';
comment on column plan_window.numbers is 'The numbers of its batches, as pairs of the first and the last of each run, once it is done.';
comment on column plan_window.file is 'Name, size and SHA-256 of the file in the store that lists its batches, once it is done.';
comment on column plan_window.done_at is 'When its batches got into the queue.';

comment on column partition.planning is 'It is in a round of planning that is not done: rows are final, whether or not a planner is at work.';
-- Marks that a killed planner of an earlier version left.
update partition set planning = false
where planning and crawl_no not in (select crawl_no from plan_round where not done);

do $$
begin
    if exists (select from pg_roles where rolname = 'laion_planner') then
        grant select, insert, update on plan_round, plan_window to laion_planner;
    end if;
    if exists (select from pg_roles where rolname = 'laion_reader') then
        grant select on plan_round, plan_window to laion_reader;
    end if;
end
$$;
