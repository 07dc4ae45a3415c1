"""The whole database side through a pooler in transaction mode, TLS, and a network that breaks."""

import datetime
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from laion_etl.core.errors import DatabaseError
from laion_etl.core.stage_stats import StageStats
from laion_etl.database.connection import Database, open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.forget import forget_crawl
from laion_etl.database.load import crawl_number, load_partition
from laion_etl.database.queue import BatchQueue
from laion_etl.database.seen_keys import export_seen_keys, import_seen_keys
from laion_etl.demo.airflow import reserved_port
from laion_etl.io.storage import LocalStore, Store
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import CoreSettings, DatabaseSettings, PlanSettings, Settings
from tests.database.pairs import numbered_pairs, write_pairs
from tests.database.wire import Network, TransactionPooler

DONE = StageStats("download", "C", "0", "f", 0, 0)


def through(url: str, folder: Path, **settings: object) -> Settings:
    return Settings(
        core=CoreSettings(data_dir=str(folder), database_url=url),
        database=replace(DatabaseSettings(), **settings),  # type: ignore[arg-type]
        plan=PlanSettings(batch_size=10),
    )


def everything(settings: Settings, store: Store, folder: Path) -> None:
    """Everything that is done with the database, starting from an empty one."""
    with open_database(settings) as database:
        for partition in (1, 0):
            write_pairs(store, "C", partition, numbered_pairs(partition * 20, partition * 20 + 30))
            load_partition("C", partition, settings, store, database)
        write_pairs(store, "C", 0, numbered_pairs(0, 25))
        load_partition("C", 0, settings, store, database)
        assert plan_batches("C", settings, store, database).kept == 50
        queue = BatchQueue(database, crawl_number(database.connection, "C"), lease_s=60, max_attempts=2)
        for _ in range(5):
            claim = queue.claim()
            assert claim is not None
            assert queue.heartbeat(claim)
            assert queue.complete(claim, DONE)
        assert queue.claim() is None
        assert queue.counts().downloaded == 5
        _, count = export_seen_keys("all", settings, store, database)
        assert count == 50
        forget_crawl("C", settings, store, database)
        assert import_seen_keys(str(folder / "memory" / "all.parquet"), settings, database).kept == 50


def test_through_a_pooler_in_transaction_mode(postgres: EmbeddedServer, tmp_path: Path) -> None:
    name = f"test_{uuid4().hex}"
    postgres.url(name)
    with TransactionPooler(postgres.socket_dir, name) as pooler:
        with psycopg.connect(pooler.url(name), autocommit=True, prepare_threshold=None) as connection:
            pids = {connection.execute("select pg_backend_pid()").fetchone() for _ in range(6)}
            assert len(pids) == 6  # or it would prove nothing
        everything(through(pooler.url(name), tmp_path), LocalStore(tmp_path), tmp_path)


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


@pytest.fixture
def pgbouncer(postgres: EmbeddedServer, tmp_path: Path, port: int) -> Iterator[str]:
    """URL of a database through a real PgBouncer."""
    command = shutil.which("pgbouncer")
    if command is None:
        pytest.skip("PgBouncer is not installed")
    name = f"test_{uuid4().hex}"
    postgres.url(name)
    (tmp_path / "users").write_text('"postgres" ""\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={postgres.socket_dir} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"auth_file = {tmp_path}/users\npool_mode = transaction\ndefault_pool_size = 6\n"
        "server_round_robin = 1\nignore_startup_parameters = extra_float_digits\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    # It does not run as root, and must reach the server's socket.
    user = ["-u", postgres.socket_dir.owner()] if os.geteuid() == 0 else []
    with subprocess.Popen(
        [command, *user, str(tmp_path / "pgbouncer.ini")], stderr=subprocess.PIPE
    ) as process:
        url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
        end = time.monotonic() + 120
        while True:
            try:
                psycopg.connect(url, connect_timeout=60).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < end
                time.sleep(0.1)
        yield url
        process.terminate()


def test_through_pgbouncer(pgbouncer: str, tmp_path: Path) -> None:
    everything(through(pgbouncer, tmp_path), LocalStore(tmp_path), tmp_path)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a self-signed certificate for localhost, its key, and another certificate."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return folder


@pytest.fixture
def tls(postgres: EmbeddedServer, authority: Path) -> Iterator[tuple[Network, str]]:
    """A TLS proxy to a database: the embedded server itself is built without TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.crt", authority / "server.key")
    name = f"test_{uuid4().hex}"
    postgres.url(name)
    with Network(postgres.socket_dir, context) as network:
        yield network, name


def test_tls_as_the_settings_say(tls: tuple[Network, str], authority: Path, tmp_path: Path) -> None:
    network, name = tls
    settings = through(
        network.url(name, "localhost"),
        tmp_path,
        sslmode="verify-full",
        sslrootcert=str(authority / "server.crt"),
    )
    with open_database(settings) as database:
        assert database.connection.pgconn.ssl_in_use
        write_pairs(LocalStore(tmp_path), "C", 0, numbered_pairs(0, 10))
        assert load_partition("C", 0, settings, LocalStore(tmp_path), database).kept == 10


@pytest.mark.parametrize("sslmode", ["verify-full", ""])
@pytest.mark.parametrize(
    ("host", "certificate", "cause"),
    [
        ("localhost", "other.crt", "certificate verify failed"),
        ("127.0.0.1", "server.crt", "does not match host name"),
    ],
)
def test_a_server_that_is_not_ours(
    tls: tuple[Network, str],
    authority: Path,
    tmp_path: Path,
    sslmode: str,
    host: str,
    certificate: str,
    cause: str,
) -> None:
    network, name = tls
    settings = through(
        network.url(name, host), tmp_path, sslmode=sslmode, sslrootcert=str(authority / certificate)
    )
    with pytest.raises(DatabaseError, match=cause), open_database(settings):
        pass


def test_no_plain_connection_where_tls_is_asked_for(postgres: EmbeddedServer, tmp_path: Path) -> None:
    name = f"test_{uuid4().hex}"
    postgres.url(name)
    with Network(postgres.socket_dir) as network:
        settings = through(network.url(name), tmp_path, sslmode="require")
        with pytest.raises(DatabaseError, match="server does not support SSL"), open_database(settings):
            pass
        with open_database(through(network.url(name), tmp_path)) as database:
            assert not database.connection.pgconn.ssl_in_use


@pytest.fixture
def shaky(postgres: EmbeddedServer, tmp_path: Path) -> Iterator[tuple[Network, Settings]]:
    name = f"test_{uuid4().hex}"
    postgres.url(name)
    with Network(postgres.socket_dir) as network:
        yield network, through(network.url(name), tmp_path, retry_for_s=240)


def test_a_lost_connection_is_opened_again(shaky: tuple[Network, Settings]) -> None:
    network, settings = shaky
    with open_database(settings) as database:
        assert database.rows("load.rule") == []
        network.cut()
        assert database.rows("load.rule") == []


@pytest.mark.parametrize("last_seen", [b"COMMIT", b"update batch"])
def test_an_answer_that_is_lost_is_no_lost_batch(
    shaky: tuple[Network, Settings], store: Store, last_seen: bytes
) -> None:
    """The server has committed, which the client cannot know: it asks again and gets the batch it has."""
    network, settings = shaky
    write_pairs(store, "C", 0, numbered_pairs(0, 30))
    with open_database(settings) as database:
        load_partition("C", 0, settings, store, database)
        plan_batches("C", settings, store, database)
        queue = BatchQueue(database, crawl_number(database.connection, "C"), lease_s=60, max_attempts=1)
        network.mute(last_seen)
        claim = queue.claim()
        assert claim is not None
        assert network.cuts == 1
        attempts = database.connection.execute(
            "select batch, attempts from batch where state = 'downloading'"
        )
        assert attempts.fetchall() == [(claim.batch, 1)]
        network.mute(last_seen)
        assert queue.complete(claim, DONE)
        assert network.cuts == 2
        assert queue.counts().downloaded == 1


def test_a_server_that_stays_away_is_waited_for_and_named(shaky: tuple[Network, Settings]) -> None:
    network, settings = shaky
    with open_database(settings) as database:
        impatient = Database(settings.core.database_url, replace(settings.database, retry_for_s=0.5))
        assert impatient.rows("load.rule") == []
        network.__exit__()
        start = time.monotonic()
        with pytest.raises(DatabaseError, match="cannot connect to Postgres at 127"):
            impatient.rows("load.rule")
        assert time.monotonic() - start >= 0.5
        database.close()


def test_a_statement_that_takes_too_long(settings: Settings) -> None:
    with open_database(settings) as database, pytest.raises(DatabaseError, match="STATEMENT_TIMEOUT_S"):
        database.run(lambda connection: connection.execute("select pg_sleep(600)"), timeout_s=0.1)


def test_two_in_each_others_way_both_get_through(settings: Settings, database: Database) -> None:
    """A deadlock: Postgres ends one of the two, which starts again."""
    connection = database.connection
    connection.execute(
        "create table two (n integer primary key, hits integer); insert into two values (1, 0), (2, 0)"
    )
    import threading

    met = threading.Barrier(2)
    tries: list[int] = []

    def hit(first: int, second: int) -> None:
        def work(connection: psycopg.Connection) -> None:
            tries.append(first)
            connection.execute("update two set hits = hits + 1 where n = %s", [first])
            if len(tries) <= 2:
                met.wait(240)
            connection.execute("update two set hits = hits + 1 where n = %s", [second])

        with open_database(settings) as own:
            own.run(work)

    threads = [threading.Thread(target=hit, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tries) == 3
    assert connection.execute("select n, hits from two order by n").fetchall() == [(1, 2), (2, 2)]
