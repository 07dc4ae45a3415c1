-- name: redact_pairs
update pair set url = '', caption = ''
where pair_id = any (%(ids)s::uuid[]) and url <> '' and pair_id between %(first)s and %(last)s

-- name: redact_pairs_of_urls
-- Where the key is that of the URL alone, the pair's own id has to be computed.
update pair set url = '', caption = ''
where pair_id between %(first)s and %(last)s and url <> ''
  and md5(url || caption)::uuid = any ((select %(ids)s)::uuid[])
