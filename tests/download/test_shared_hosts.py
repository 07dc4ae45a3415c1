"""Shared knowledge of hosts: fewer requests, the same results, and no trust in a single worker."""

import logging
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import trio
from psycopg.conninfo import make_conninfo

from laion_etl.core.funnel import DownloadStatus
from laion_etl.database.connection import Database
from laion_etl.download.batch_downloader import Hooks
from laion_etl.download.client import Client
from laion_etl.download.host_facts import (
    SHARED_FAILURES,
    FactKind,
    HostFact,
    HostRules,
    failure_fact,
    read_failure,
    read_rules,
    read_unreachable,
    rules_fact,
    unreachable_fact,
)
from laion_etl.download.link_failed import LinkFailed
from laion_etl.download.politeness import HostLimiter, OriginState
from laion_etl.download.request_url import RequestUrl, parse_request_url
from laion_etl.download.robots import PolicyFile, RobotsPolicy
from laion_etl.download.robots_rules import RobotsRules, lines_for
from laion_etl.download.shared_hosts import SharedHosts
from laion_etl.download.stage import download_batch
from laion_etl.download.tdmrep import compiled, is_reserved, tdm_lines
from laion_etl.io.storage import LocalStore, Store
from laion_etl.settings import DatabaseSettings, DownloadSettings, Settings
from tests.download.sites import Reply, Site, site
from tests.download.test_robots import CASES
from tests.download.test_stage import plan, rows_of

ORIGIN = ("http", "a.example", 80)
LINK = parse_request_url("http://a.example/private/1.jpg")
DENIED = HostFact(FactKind.RULES, zlib.compress(b'{"robots":["-/private/"],"tdm":[]}'))
ALLOWED = HostFact(FactKind.RULES, zlib.compress(b'{"robots":[],"tdm":[]}'))
DEAD = HostFact(FactKind.DEAD, b"connect_failed no connection")


@contextmanager
def workers_at(settings: Settings, *addresses: str) -> Iterator[list[SharedHosts]]:
    """A worker at each address. The server of the tests sees no addresses, so the URL states them."""
    url = settings.core.database_url
    with ExitStack() as stack:
        with psycopg.connect(url) as connection:
            connection.execute(
                "create or replace function host_witness(worker text, kind smallint) returns uuid "
                "language sql stable return md5(current_setting('test.address') "
                "|| case when kind = 1 then '' else '/' || worker end)::uuid"
            )
        workers = []
        for address in addresses:
            at = make_conninfo(url, options=f"-c test.address={address}")
            database = Database(at, settings.database)
            stack.callback(database.close)
            workers.append(SharedHosts(database, settings.download))
        yield workers


def test_rules_are_the_same_after_they_were_shared() -> None:
    for file, path, allowed in (case for cases in CASES.values() for case in cases):
        body = file.encode() if isinstance(file, str) else file
        fact = rules_fact(HostRules(lines_for(body, "FooBot")))
        assert fact is not None
        assert RobotsRules.from_lines(read_rules(fact).robots).allows(path) is allowed, (file, path)


def test_reservations_are_the_same_after_they_were_shared() -> None:
    body = (
        b'[{"location":"/a\\n/*.jpg","tdm-reservation":1},{"location":"","tdm-reservation":0},'
        b'{"location":"\xc3\xb6"}]'
    )
    fact = rules_fact(HostRules((), tdm_lines(body)))
    assert fact is not None
    lines = read_rules(fact).tdm
    assert lines == tdm_lines(body)
    assert is_reserved(compiled(lines), "/a%0A/1.jpg")
    assert not is_reserved(compiled(lines), "/b")


def test_groups_of_others_take_no_room_and_what_is_too_large_is_not_shared() -> None:
    group = "".join(f"Disallow: /{zlib.crc32(b'%d' % n)}/{n}\n" for n in range(20_000))
    others = rules_fact(
        HostRules(lines_for(f"User-agent: *\n{group}User-agent: us\nDisallow: /".encode(), "us"))
    )
    assert others is not None
    assert len(others.content) < 100
    assert rules_fact(HostRules(lines_for(f"User-agent: *\n{group}".encode(), "us"))) is None
    some = lines_for(f"User-agent: *\n{group}".encode(), "us")[:1_000]
    assert rules_fact(HostRules(some)) is None  # small enough to be compressed, and still too large


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not compressed",
        zlib.compress(b"{"),
        zlib.compress(b"[]"),
        zlib.compress(b'{"robots":[]}'),
        zlib.compress(b'{"robots":{},"tdm":[]}'),
        zlib.compress(b'{"robots":["/no-sign"],"tdm":[]}'),
        zlib.compress(b'{"robots":["+no-slash"],"tdm":[]}'),
        zlib.compress(b'{"robots":[["+","/"]],"tdm":[]}'),
        zlib.compress('{"robots":["-/\u20ac"],"tdm":[]}'.encode()),
        zlib.compress(b'{"robots":[],"tdm":[1]}'),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b'{"robots":[' + b" " * 10_000_000 + b'],"tdm":[]}'),  # a bomb
        zlib.compress(b'{"robots":[],"tdm":[]}')[:-4],
    ],
)
def test_what_is_not_understood_is_fetched(content: bytes) -> None:
    fact = HostFact(FactKind.RULES, content)
    with pytest.raises(ValueError, match=r".*"):
        read_rules(fact)
    asked = []

    async def get(target: object) -> PolicyFile:
        asked.append(target)
        return PolicyFile(200, b"User-agent: *\nDisallow: /private/")

    policy = RobotsPolicy("us", get, DownloadSettings(tdmrep=False))
    policy.know({ORIGIN: fact})
    with pytest.raises(LinkFailed, match="opted_out_robots_txt"):
        trio.run(policy.check, LINK)
    assert len(asked) == 1
    assert policy.learned == {ORIGIN: DENIED}


@pytest.mark.parametrize(
    "content",
    [b"", b"success ", b"robots_unreachable 503", b"address_refused x", b"dns_failed", b"dns_failed \n"],
)
def test_only_failures_of_an_origin_are_read(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_failure(HostFact(FactKind.DEAD, content))
    client = Client(DownloadSettings())
    client.know({ORIGIN: HostFact(FactKind.DEAD, content)})
    assert client.hosts.origin_state(LINK).failure is None


def test_causes_are_printable() -> None:
    with pytest.raises(ValueError, match="printable"):
        read_unreachable(HostFact(FactKind.UNREACHABLE, b"503\tforged"))
    assert failure_fact(LinkFailed(DownloadStatus.TLS_FAILED, "certificate: \u202e")) is None
    assert failure_fact(LinkFailed(DownloadStatus.RESOLVER_FAILED, "ours")) is None


async def outcomes(policy: RobotsPolicy) -> list[str]:
    """Why each of some paths is refused."""
    found = []
    for path in ("/private/1.jpg", "/open/1.jpg", "/train/2.jpg"):
        try:
            await policy.check(LINK.at(path))
        except LinkFailed as failure:
            found.append(f"{failure.status.value} {failure.message}")
        else:
            found.append("allowed")
    return found


OPEN = PolicyFile(404, b"", 0.0, False)
NO_PRIVATE = b"User-agent: *\nDisallow: /private/"
RESERVED = b'[{"location": "/train/", "tdm-reservation": 1}, {"location": "/open/", "tdm-reservation": 0}]'


@pytest.mark.parametrize(
    ("robots", "tdm"),
    [
        (PolicyFile(200, NO_PRIVATE), OPEN),
        (PolicyFile(200, NO_PRIVATE), PolicyFile(200, RESERVED)),
        (PolicyFile(200, NO_PRIVATE, 0.0, True), PolicyFile(200, RESERVED)),
        (PolicyFile(200, b"User-agent: *\nContent-Usage: train-ai=n\nAllow: /", 0.0, True), OPEN),
        (PolicyFile(200, b"User-agent: *\nContent-Usage: train-ai=n\nAllow: /"), PolicyFile(200, RESERVED)),
        (PolicyFile(200, b"License: https://a.example/terms.xml"), OPEN),
        (PolicyFile(200, b"User-agent: *\nAllow: /open/", 0.0, True), OPEN),
        (PolicyFile(200, b"", 0.0, True), PolicyFile(200, RESERVED)),
        (PolicyFile(503, NO_PRIVATE), OPEN),
        (PolicyFile(503, NO_PRIVATE), PolicyFile(200, RESERVED)),
        (PolicyFile(404, NO_PRIVATE), PolicyFile(200, RESERVED)),
        (OPEN, PolicyFile(200, RESERVED, 0.0, True)),
        (OPEN, PolicyFile(200, RESERVED[:60], 0.0, True)),
        (OPEN, PolicyFile(503, RESERVED)),
        (OPEN, PolicyFile(200, b'{"location": "*", "tdm-reservation": "1"}')),
        (OPEN, PolicyFile(200, b'[{"location": "/a b|\\n+/", "tdm-reservation": 1}]')),
        (OPEN, OPEN),
    ],
)
def test_who_knows_a_host_from_another_worker_decides_as_that_one(
    robots: PolicyFile, tdm: PolicyFile
) -> None:
    async def get(target: RequestUrl) -> PolicyFile:
        return tdm if target.path.endswith("tdmrep.json") else robots

    async def ask(target: RequestUrl) -> PolicyFile:
        raise AssertionError(f"{target.url} was fetched although it is known")

    settings = DownloadSettings(retries=0)
    first, second = RobotsPolicy("us", get, settings), RobotsPolicy("us", ask, settings)
    first.know({})
    found = trio.run(outcomes, first)
    assert first.learned is not None
    second.know(first.learned)
    assert trio.run(outcomes, second) == found


@pytest.mark.parametrize("status", [one for one in DownloadStatus if one is not DownloadStatus.SUCCESS])
def test_who_knows_a_dead_host_from_another_worker_says_the_same_of_it(status: DownloadStatus) -> None:
    message = "refused by 192.0.2.1: 111"
    fact = failure_fact(LinkFailed(status, message))
    client = Client(DownloadSettings())
    client.know({} if fact is None else {ORIGIN: fact})
    known = client.hosts.origin_state(LINK).failure
    assert (known is not None) == (status in SHARED_FAILURES)
    assert known is None or (known.status, known.message) == (status, message)


def test_half_of_rules_too_long_to_be_shared_is_not_shared_without_them() -> None:
    lines = [(False, f"/{uuid4().hex}".encode()) for _ in range(300)]
    assert unreachable_fact("cut off") is not None
    assert unreachable_fact("cut off", lines[:3]) is not None
    assert unreachable_fact("cut off", lines) is None


@pytest.mark.parametrize("content", [b"cut off\n", b"cut off\nnot compressed", b"\x80\n"])
def test_half_of_rules_that_is_not_understood_is_fetched(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_unreachable(HostFact(FactKind.UNREACHABLE, content))


def test_rules_of_one_address_count_for_others_when_another_one_confirms_them(settings: Settings) -> None:
    with workers_at(settings, "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3") as (one, same, two, three):
        one.write({ORIGIN: DENIED})
        assert [worker.read([ORIGIN]) for worker in (one, same, two)] == [{ORIGIN: DENIED}] * 2 + [{}]
        same.write({ORIGIN: DENIED})  # the same machine is not a second witness
        assert two.read([ORIGIN]) == {}
        two.write({ORIGIN: DENIED})
        assert three.read([ORIGIN]) == {ORIGIN: DENIED}


def test_a_worker_that_was_taken_over_cannot_hide_an_opt_out(settings: Settings) -> None:
    with workers_at(settings, "10.6.6.6", "10.6.6.6", "10.0.0.1", "10.0.0.2") as (evil, twin, one, two):
        for worker in (evil, twin, evil):
            worker.write({ORIGIN: ALLOWED})
        assert one.read([ORIGIN]) == {}
        one.write({ORIGIN: DENIED})  # which it has fetched
        evil.write({ORIGIN: ALLOWED})
        assert two.read([ORIGIN]) == {}
        one.write({ORIGIN: DENIED})
        two.write({ORIGIN: DENIED})
        evil.write({ORIGIN: ALLOWED})
        assert one.read([ORIGIN]) == two.read([ORIGIN]) == evil.read([ORIGIN]) == {ORIGIN: DENIED}


def test_logins_that_are_witnesses_confirm_each_other_behind_one_address(
    settings: Settings, connection: psycopg.Connection
) -> None:
    """As behind PgBouncer. A worker cannot have another login by `set role`."""
    names = [f"user_{uuid4().hex}" for _ in range(4)]
    one, two, without, member = names
    roles = connection.execute("select from pg_roles where rolname = 'laion_witness'").fetchall()
    if not roles:
        connection.execute("create role laion_witness nologin")
    for name in names:
        connection.execute(f"create role {name} login in role laion_worker")  # type: ignore[call-overload]
    connection.execute(f"grant laion_witness to {one}, {two}; grant {two} to {one}")  # type: ignore[call-overload]
    connection.execute(f"grant {one} to {member}")  # type: ignore[call-overload]
    try:
        with ExitStack() as stack:

            def worker(name: str, options: str = "") -> SharedHosts:
                url = make_conninfo(settings.core.database_url, user=name, options=options)
                database = Database(url, settings.database)
                stack.callback(database.close)
                return SharedHosts(database, settings.download)

            first, same, pretends = worker(one), worker(one), worker(one, f"-c role={two}")
            second, third, fourth = worker(two), worker(without), worker(member)
            first.write({ORIGIN: DENIED})
            pretends.write({ORIGIN: DENIED})
            assert same.read([ORIGIN]) == {ORIGIN: DENIED}
            assert [other.read([ORIGIN]) for other in (second, third, fourth)] == [{}] * 3
            second.write({ORIGIN: DENIED})
            assert [other.read([ORIGIN]) for other in (third, fourth)] == [{ORIGIN: DENIED}] * 2
    finally:
        for name in names:
            connection.execute(f"drop role {name}")  # type: ignore[call-overload]


def test_a_host_is_dead_for_others_when_two_workers_say_so(settings: Settings) -> None:
    with workers_at(settings, "10.0.0.1", "10.0.0.1", "10.0.0.1") as (one, two, three):
        one.write({ORIGIN: DEAD})
        one.write({ORIGIN: DEAD})
        assert (one.read([ORIGIN]), two.read([ORIGIN])) == ({ORIGIN: DEAD}, {})
        two.write({ORIGIN: DEAD})
        assert three.read([ORIGIN]) == {ORIGIN: DEAD}


def test_facts_expire_and_are_deleted(settings: Settings, database: Database) -> None:
    worker = SharedHosts(database, settings.download)
    others = {("http", f"{n}.example", 80): ALLOWED for n in range(5)}
    worker.write({ORIGIN: DENIED, **others})
    assert len(worker.read([ORIGIN, *others])) == 6
    lifetimes = "select max(expires) < now() + interval '1 day', min(expires) > now() from host_fact"
    assert database.connection.execute(lifetimes).fetchone() == (True, True)
    database.connection.execute("update host_fact set expires = now() + interval '25 hours'")
    assert worker.read([ORIGIN, *others]) == {}  # nothing lasts that long
    database.connection.execute("update host_fact set expires = now() - interval '1 second'")
    assert worker.read([ORIGIN, *others]) == {}
    assert database.connection.execute("select delete_expired_hosts(2)").fetchone() == (2,)
    worker.write({ORIGIN: ALLOWED})
    assert worker.read([ORIGIN]) == {ORIGIN: ALLOWED}
    assert database.connection.execute("select count(*) from host_fact").fetchone() == (1,)


def test_other_settings_share_nothing(settings: Settings, database: Database) -> None:
    SharedHosts(database, settings.download).write({ORIGIN: DENIED})
    for change in ({"user_agent": "Other/1.0"}, {"verify_tls": False}, {"tdmrep": False}):
        assert SharedHosts(database, replace(settings.download, **change)).read([ORIGIN]) == {}
    bigger = SharedHosts(database, replace(settings.download, image_size=512, connections=3))
    assert bigger.read([ORIGIN]) == {ORIGIN: DENIED}


def test_the_table_has_no_names(settings: Settings, database: Database) -> None:
    SharedHosts(database, settings.download).write({ORIGIN: DENIED})
    (row,) = database.connection.execute("select host_fact::text from host_fact").fetchall()
    assert "example" not in row[0]


def test_workers_are_counted_until_they_leave(settings: Settings, database: Database) -> None:
    one, two, three = (SharedHosts(database, settings.download) for _ in range(3))
    for worker in (one, two, three):
        worker.read([])
    assert (one.workers, two.workers, three.workers) == (1, 2, 3)
    two.leave()
    one.beat(database)
    assert one.workers == 2
    database.connection.execute("update live_downloader set expires = now() - interval '1 second'")
    one.beat(database)  # the others have stopped reporting
    assert one.workers == 1


@pytest.mark.parametrize(("workers", "wait_s"), [(1, 0.05), (5, 0.05), (50, 0.5), (300, 3.0)])
def test_a_host_gets_its_requests_from_all_workers_together(workers: int, wait_s: float) -> None:
    limiter = HostLimiter(DownloadSettings(), lambda host: host == "test.example")
    states = [
        limiter.origin_state(parse_request_url(f"http://{host}/1"))
        for host in ("before.example", "test.example")
    ]
    limiter.divide(workers)
    states.append(limiter.origin_state(parse_request_url("http://after.example/1")))
    waits = []
    for state in states:
        assert limiter.try_enter(state, now=100.0) is not None
        waits.append(state.host.next_at - 100.0)
    assert waits == pytest.approx([wait_s, 0.0, wait_s])


def test_workers_that_begin_together_do_not_all_ask_at_once() -> None:
    limiter = HostLimiter(DownloadSettings(), lambda host: host == "test.example")
    limiter.begin(300, now=100.0)
    hosts = [limiter.origin_state(parse_request_url(f"http://{n}.example/1")).host for n in range(50)]
    assert all(100.0 <= host.next_at <= 103.0 for host in hosts)
    assert len({host.next_at for host in hosts}) == 50
    assert limiter.origin_state(parse_request_url("http://test.example/1")).host.next_at < 100.0
    few = HostLimiter(DownloadSettings(), lambda _: False)
    few.begin(5, now=100.0)
    assert few.origin_state(parse_request_url("http://a.example/1")).host.next_at <= 100.0


def test_a_worker_for_which_most_hosts_fail_blames_none() -> None:
    limiter = HostLimiter(DownloadSettings(), lambda _: False)
    states = [limiter.origin_state(parse_request_url(f"http://{n}.example/1")) for n in range(4)]

    async def fail(some: list[OriginState]) -> None:
        for state in some:
            state.failed(LinkFailed(DownloadStatus.CONNECT_FAILED, "no connection"), 30)

    trio.run(fail, states[:2])
    assert set(limiter.learned()) == {states[0].origin, states[1].origin}
    trio.run(fail, states[2:3])
    assert limiter.learned() == {}


def test_without_a_database_all_hosts_are_asked(caplog: pytest.LogCaptureFixture) -> None:
    closed = Database("postgresql://127.0.0.1:1/laion", DatabaseSettings(retry_for_s=0))
    worker = SharedHosts(closed, DownloadSettings())
    with caplog.at_level(logging.WARNING):
        assert worker.read([ORIGIN]) == {}
        worker.write({ORIGIN: DENIED})
        worker.leave()
    assert (
        "cannot read what is known of hosts, all of them are asked: cannot connect to Postgres" in caplog.text
    )
    assert "cannot share what was found out about hosts" in caplog.text


BY_HOST: dict[tuple[str, str], Reply] = {
    ("closed.example", "/robots.txt"): (200, {}, b"User-agent: *\nDisallow: /p"),
    ("busy.example", "/robots.txt"): (503, {}, b""),
    ("moved.example", "/robots.txt"): (301, {"Location": "http://open.example/robots.txt"}, b""),
    ("reserved.example", "/.well-known/tdmrep.json"): (
        200,
        {},
        b'[{"location": "/", "tdm-reservation": 1}]',
    ),
}
HOSTS = (
    "open.example",
    "closed.example",
    "busy.example",
    "moved.example",
    "reserved.example",
    "dead.example",
)
URLS = [f"http://{host}/{path}" for host in HOSTS for path in ("p/1.jpg", "q/2.jpg")]


@dataclass(frozen=True, slots=True)
class Run:
    """One download of URLS: the policy files that were requested, and the bytes of the shard."""

    asked: list[str]
    tar: bytes
    rows: list[tuple[str, str, str]]


def run(store: Store, running: Site, settings: DownloadSettings, hosts: SharedHosts | None) -> Run:
    plan(store, URLS)
    before = len(running.requests)
    download_batch("C", 7, Settings(download=settings), store, Hooks(hosts=hosts))
    asked = [f"{one.host}{one.path}" for one in running.requests[before:] if not one.path.endswith(".jpg")]
    rows = [(row["url"], row["status"], row["error_message"]) for row in rows_of(store)]
    return Run(sorted(asked), store.read("shards/C/000000007.tar"), rows)


def test_results_do_not_depend_on_who_asked(tmp_path: Path, database: Database) -> None:
    with site() as running:
        running.by_host = BY_HOST
        here = f"127.0.0.1:{running.port}"
        settings = DownloadSettings(
            connect_to=("dead.example=127.0.0.1:1", f"*.example={here}"),
            retries=0,
            # Nothing is decoded: that would be slow, and it is not what may differ.
            resize_mode="no",
            perceptual_hashes=False,
        )
        workers = [None, *(SharedHosts(database, settings) for _ in range(3))]
        alone, first, second, third = (
            run(LocalStore(tmp_path / str(number)), running, settings, worker)
            for number, worker in enumerate(workers)
        )
    assert first.asked == alone.asked
    assert second.asked == ["busy.example/robots.txt"]  # it and the dead one need a second witness
    assert third.asked == []
    assert (first.rows, first.tar) == (second.rows, second.tar) == (third.rows, third.tar)
    assert (first.rows, first.tar) == (alone.rows, alone.tar)
    assert Counter(status for _, status, _ in alone.rows) == {
        "success": 5,
        "opted_out_robots_txt": 1,
        "opted_out_tdm": 2,
        "robots_unreachable": 2,
        "connect_failed": 2,
    }
