-- name: copy_keys
copy (select pair_id from pair where pair_id between {first} and {last} order by pair_id) to stdout (format binary)

-- name: imported
-- Imports of earlier versions have no column loading.
select partition, partition_no, fingerprint <> '', stats from partition
where crawl_no = %(crawl_no)s and %(loading)s in (loading, fingerprint)

-- name: next_partition
select coalesce(max(partition) + 1, 0) from partition where crawl_no = %(crawl_no)s
