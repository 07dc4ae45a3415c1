-- name: batches
select batch, pairs, state::text, coalesce(lease_expires > now(), false) and state = 'leased'
from batch join crawl using (crawl_no)
where crawl = %(crawl)s and batch > %(after)s
order by batch
limit %(rows)s

-- name: partitions
select partition, fingerprint from partition join crawl using (crawl_no)
where crawl = %(crawl)s and fingerprint <> ''
order by partition

-- name: finish
-- The token grows, so that a worker that still has the batch cannot record another result. How long the one that finished it
-- held it is not known: from its claim to this moment may be days.
update batch
set state = 'done', stats = %(stats)s, token = token + 1, lease_owner = null, error = null, claimed_at = null,
    updated_at = now()
where batch = %(batch)s and state <> 'done' and (state <> 'leased' or lease_expires < now())

-- name: reopen
update batch
set state = 'ready', stats = null, token = token + 1, attempts = 0, outages = 0, lease_owner = null,
    error = null, updated_at = now()
where batch = %(batch)s and state = 'done'
