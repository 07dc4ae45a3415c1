-- Views for people and dashboards.

create view pair_text as
select pair_id, crawl, partition, pair.url, alt, language, page.license, page.url as page_url
from pair
join partition using (partition_no)
join crawl using (crawl_no)
left join page using (partition_no, page_no);
comment on view pair_text is 'Pairs with page, licence and crawl; select by pair_id, or by crawl and partition.';

create view load_progress as
select crawl,
       count(*) as partitions,
       count(*) filter (where planned) as planned,
       coalesce(sum((stats ->> 'input')::bigint), 0)::bigint as pairs_in,
       coalesce(sum((stats ->> 'kept')::bigint), 0)::bigint as pairs_kept,
       coalesce(sum((stats -> 'dropped' ->> 'duplicate_in_partition')::bigint), 0)::bigint as duplicates_in_partition,
       coalesce(sum((stats -> 'dropped' ->> 'duplicate_in_crawl')::bigint), 0)::bigint as duplicates_in_crawl,
       coalesce(sum((stats -> 'dropped' ->> 'duplicate_of_earlier_crawl')::bigint), 0)::bigint as duplicates_of_earlier_crawls,
       count(*) filter (where loaded_at > now() - interval '15 minutes') * 4 as partitions_per_hour,
       max(loaded_at) as last_loaded_at
from partition join crawl using (crawl_no)
where fingerprint <> ''
group by crawl;
comment on view load_progress is 'Loaded partitions and pairs per crawl. Rates are those of the last 15 minutes.';

create view queue_progress as
select crawl,
       count(*) as batches,
       count(*) filter (where state = 'ready') as ready,
       count(*) filter (where state = 'leased') as leased,
       count(*) filter (where state = 'leased' and lease_expires < now()) as silent,
       count(*) filter (where state = 'done') as done,
       count(*) filter (where state = 'failed') as failed,
       coalesce(sum(pairs), 0)::bigint as pairs,
       coalesce(sum(pairs) filter (where state = 'done'), 0)::bigint as pairs_done,
       coalesce(sum(pairs) filter (where state in ('ready', 'leased')), 0)::bigint as pairs_left,
       coalesce(sum((stats ->> 'kept')::bigint) filter (where state = 'done'), 0)::bigint as images,
       count(distinct lease_owner) filter (where state = 'leased') as workers,
       recent.pairs_per_hour,
       case when recent.pairs_per_hour > 0 then
           make_interval(secs => 3600.0 * coalesce(sum(pairs) filter (where state in ('ready', 'leased')), 0)
                                 / recent.pairs_per_hour)
       end as time_left,
       now() - min(claimed_at) filter (where state = 'leased') as oldest_lease,
       max(updated_at) filter (where state = 'done') as last_done_at
from batch
join crawl using (crawl_no)
join lateral (
    -- Over the last 15 minutes, or since the first of them was claimed where that is less.
    select coalesce(3600.0 * sum(done.pairs)
           / greatest(extract(epoch from now() - greatest(min(done.claimed_at), now() - interval '15 minutes')), 1), 0)
           ::bigint as pairs_per_hour
    from batch as done
    where done.crawl_no = crawl.crawl_no and done.state = 'done' and done.updated_at > now() - interval '15 minutes'
) as recent on true
group by crawl, recent.pairs_per_hour;
comment on view queue_progress is 'Per crawl: batches by state, rate and time left. silent: leased, but the lease ran out.';

create view lease as
select crawl, batch, attempts, lease_owner, now() - claimed_at as held_for, lease_expires - now() as left_for
from batch join crawl using (crawl_no)
where state = 'leased';
comment on view lease is 'Batches that workers hold; left_for below zero: the worker is silent and will lose it.';

create view failed_batch as
select crawl, batch, pairs, attempts, error, updated_at as failed_at
from batch join crawl using (crawl_no)
where state = 'failed';
comment on view failed_batch is 'Batches parked with their error; `laion-etl stage download --crawl C --batch N` retries one.';
