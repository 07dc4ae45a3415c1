-- name: thousands
-- Counters of the downloaded batches of each thousand that has some.
select thousand, sum(done)::bigint, sum(images)::bigint, sum_counts(dropped)
from (select * from batch_thousand union all select * from batch_change) as counts
where crawl_no = (select crawl_no from crawl where crawl = %(crawl)s)
group by thousand
having sum(done) > 0
order by thousand

-- name: downloaded
-- Downloaded batches of some thousands, at most so many of each, spread over it.
select batch
from unnest(%(thousands)s::bigint[]) as chosen (thousand)
cross join lateral (
    select batch, row_number() over (order by batch) - 1 as place, count(*) over () as number
    from batch
    where batch.batch between thousand * 1000 and thousand * 1000 + 999
        and crawl_no = (select crawl_no from crawl where crawl = %(crawl)s) and images is not null
) as one
where place = 0 or place * %(rows)s::bigint / number <> (place - 1) * %(rows)s / number
order by batch
