-- name: copy_keys
copy (select pair_id from pair order by pair_id) to stdout (format binary)

-- name: imported
select stats from partition where crawl_no = %(crawl_no)s and fingerprint = %(fingerprint)s

-- name: next_partition
select coalesce(max(partition) + 1, 0) from partition where crawl_no = %(crawl_no)s
