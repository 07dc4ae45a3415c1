-- name: loads
select crawl, partitions, planned, pairs_kept, partitions_per_hour, last_loaded_at from load_progress
order by crawl

-- name: queues
select crawl, batches, ready, leased, silent, done, failed, pairs, pairs_done, pairs_left, images, workers,
       pairs_per_hour, extract(epoch from time_left)::float8, extract(epoch from oldest_lease)::float8
from queue_progress
order by crawl

-- name: oldest_leases
select batch, attempts, lease_owner,
       extract(epoch from held_for)::float8, extract(epoch from left_for)::float8
from lease where crawl = %(crawl)s
order by held_for desc nulls last
limit 3

-- name: failed_batches
select batch, attempts, error from failed_batch where crawl = %(crawl)s order by batch
