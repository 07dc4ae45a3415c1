-- What the state of a load, a plan and a forget is, so that each works in many short transactions and goes on after a
-- kill. A long transaction keeps every old version of every row of the database, and the queue has many of those.

alter table partition add column loading text not null default '';
comment on column partition.loading is 'Fingerprint of the load that wrote its rows so far; it goes on there if it was interrupted.';
comment on column partition.fingerprint is 'Settings and inputs of the load; the same one is never loaded twice. Empty: a load is running or was interrupted.';

alter table partition add column planning boolean not null default false;
comment on column partition.planning is 'A planner is cutting its pairs into batches: rows are final. In force only while the planner of its crawl holds its lock.';

alter table crawl add column forgotten_to uuid;
comment on column crawl.forgotten_to is 'Not null: the crawl is being forgotten, and its pairs up to this key are deleted.';

-- Adds the new rows of one leaf of table pair to index pair_of_partition: one leaf at a time is a short transaction.
create function summarize_new_pairs(leaf regclass) returns bigint
language sql security definer set search_path from current
return (
    select brin_summarize_new_values(inhrelid)
    from pg_inherits where inhparent = 'pair_of_partition'::regclass and inhrelid = leaf);
comment on function summarize_new_pairs(regclass) is 'To be called for each leaf of index pair_of_partition before rows are looked up by partition: adds the new ones. Returns ranges of pages.';
revoke execute on function summarize_new_pairs(regclass) from public;

-- Rights of the roles, where they exist; 004_roles.sql grants the same if it is run later.
do $$
begin
    if exists (select from pg_roles where rolname = 'laion_planner') then
        grant update (planning) on partition to laion_planner;
    end if;
    if exists (select from pg_roles where rolname = 'laion_loader') then
        grant execute on function summarize_new_pairs(regclass) to laion_loader;
    end if;
end
$$;

-- Databases made by version 0.1 name a command that has another name now.
comment on view failed_batch is 'Batches parked with their error; `laion-etl stage download --crawl C --batch N` retries one.';
