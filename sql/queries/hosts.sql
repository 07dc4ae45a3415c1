-- name: read
select origin, kind, content
from host_fact
where origin = any (%(origins)s::uuid[])
  and expires between now() and now() + interval '1 day'
  and (confirmed or witness = (select host_witness(%(worker)s, 1::smallint))
       or witness = (select host_witness(%(worker)s, 2::smallint)))

-- name: write
select note_hosts(%(worker)s, %(origins)s, %(kinds)s, %(contents)s)

-- name: delete_expired
select delete_expired_hosts(%(most)s)

-- name: live
insert into live_downloader (worker, expires) values (%(worker)s, now() + make_interval(secs => %(lease_s)s))
on conflict (worker) do update set expires = excluded.expires

-- name: count_live
select count(*)::integer from live_downloader where expires > now()

-- name: leave
delete from live_downloader where worker = %(worker)s or expires < now() - interval '1 hour'
