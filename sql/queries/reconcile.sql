-- name: batches
select batch, pairs, state::text,
       state in ('downloaded', 'scoring', 'scored') or state = 'parked' and stats is not null,
       coalesce(greatest(lease_expires, race_expires) > now(), false) and state in ('downloading', 'scoring')
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
set state = 'downloaded', stats = %(stats)s, attempts = 0, token = greatest(token, race_token) + 1, lease_owner = null,
    race_owner = null, race_expires = null, error = null, claimed_at = null, updated_at = now()
where batch = %(batch)s and (state = 'ready' or state = 'parked' and stats is null
                               or state = 'downloading' and greatest(lease_expires, race_expires) < now())

-- name: reopen
update batch
set state = 'ready', stats = null, score_stats = null, raw_deleted = false, token = greatest(token, race_token) + 1,
    attempts = 0, outages = 0, lease_owner = null, race_owner = null, race_expires = null, error = null, updated_at = now()
where batch = %(batch)s and (state in ('downloaded', 'scored') or state = 'parked' and stats is not null
                               or state = 'scoring' and greatest(lease_expires, race_expires) < now())

-- name: score_again
update batch
set state = 'downloaded', score_stats = null, raw_deleted = false, token = greatest(token, race_token) + 1, attempts = 0,
    outages = 0, lease_owner = null, error = null, updated_at = now()
where batch = %(batch)s and state = 'scored'
