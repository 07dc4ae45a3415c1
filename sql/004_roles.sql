-- Roles and their privileges. Grant these to the login roles of your pods: `grant laion_worker to my_worker_login;`
--
--   laion_reader   reads everything
--   laion_loader   laion-etl stage load and db seen-keys import
--   laion_planner  laion-etl stage plan
--   laion_worker   laion-etl stage download and stage score: only the queue, no pairs
--
-- Migrations, db forget and db seen-keys export need the owner of the schema. If the user may not create roles, the schema is
-- made without them: have an administrator run this file; it may be run again.

do $$
declare
    missing constant text[] := array(
        select name from unnest(array['laion_reader', 'laion_loader', 'laion_planner', 'laion_worker']) as name
        where name not in (select rolname from pg_roles));
    name text;
begin
    foreach name in array missing loop
        begin
            execute format('create role %I nologin', name);
        exception
            when duplicate_object or unique_violation then null;  -- created meanwhile from another database of this server
            when insufficient_privilege then
                raise notice 'role % is missing and may not be created', name;
                return;
        end;
    end loop;

    execute format('grant usage on schema %I to laion_reader, laion_loader, laion_planner, laion_worker',
                   current_schema());
    grant select on schema_migration, crawl to laion_reader, laion_loader, laion_planner, laion_worker;

    grant select on partition, page, pair, batch, dedupe_rule to laion_reader;
    grant select on pair_text, load_progress, queue_progress, lease, failed_batch to laion_reader;

    grant insert on crawl to laion_loader;
    grant select, insert on dedupe_rule to laion_loader;
    grant select, insert, update on partition to laion_loader;
    grant select, insert, delete on pair, page to laion_loader;
    grant execute on function summarize_new_pairs() to laion_loader, laion_planner;

    grant select on pair, page, partition, dedupe_rule, batch to laion_planner;
    grant update (planned) on partition to laion_planner;
    if exists (select from pg_attribute where attrelid = 'partition'::regclass and attname = 'planning') then
        -- 007_short_transactions.sql has been applied
        grant update (planning) on partition to laion_planner;
        grant execute on function summarize_new_pairs(regclass) to laion_loader;
    end if;
    if to_regclass('partition_range') is not null then
        -- 008_key_ranges.sql has been applied
        grant select on key_ranges to laion_reader, laion_loader, laion_planner;
        grant select on partition_range to laion_reader, laion_planner;
        grant select, insert, update on partition_range to laion_loader;
    end if;
    grant insert on batch to laion_planner;

    grant select on batch to laion_worker;
    grant update (state, attempts, token, lease_owner, lease_expires, claimed_at, stats, error, updated_at)
        on batch to laion_worker;
    if to_regclass('queue_contact') is not null then
        -- 011_outages.sql has been applied
        grant select on queue_contact to laion_reader;
        grant select, insert, update on queue_contact to laion_worker;
        grant update (outages) on batch to laion_worker;
    end if;
    if to_regclass('queue_depth') is not null then
        -- 012_fleet.sql has been applied
        grant select on queue_depth to laion_reader, laion_worker;
        grant update (download_attempts, score_stats, raw_deleted) on batch to laion_worker;
    end if;
    if to_regclass('host_fact') is not null then
        -- 013_hosts.sql has been applied
        grant select on host_fact, live_downloader to laion_reader;
        grant select on host_fact to laion_worker;
        grant execute on function note_hosts(text, uuid[], smallint[], bytea[]), delete_expired_hosts(integer) to laion_worker;
        grant select, insert, update, delete on live_downloader to laion_worker;
    end if;
    if to_regclass('batch_thousand') is not null then
        -- 010_progress.sql has been applied
        grant select on batch_thousand, batch_change, batch_count to laion_reader, laion_planner, laion_worker;
        grant select on failure to laion_reader;
        grant execute on function roll_up_batches(integer) to laion_reader, laion_loader, laion_planner, laion_worker;
    end if;
    if exists (select from pg_attribute where attrelid = 'batch'::regclass and attname = 'race_owner') then
        -- 015_races.sql has been applied
        grant update (race_owner, race_token, race_expires, race_began) on batch to laion_worker;
    end if;
    if to_regclass('range_home') is not null then
        -- 014_servers.sql has been applied
        grant select on this_server, database_server, range_home to laion_reader, laion_loader, laion_planner, laion_worker;
        grant execute on function copy_partition(smallint, text, integer, integer, text, integer, integer) to laion_loader;
        grant update (stats) on partition to laion_planner;
    end if;
end
$$;
