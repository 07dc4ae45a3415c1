"""The download stage when a service it needs is killed: the retry writes the same shard, byte for byte."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import urllib3

from laion_etl.core.errors import StorageError
from laion_etl.database.connection import open_database
from laion_etl.database.load import load_partition
from laion_etl.demo.airflow import reserved_port
from laion_etl.download.batch_downloader import Hooks
from laion_etl.download.stage import download_batch
from laion_etl.io import storage
from laion_etl.io.storage import LocalStore, Store, open_store, s3_retry
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import DownloadSettings, Settings
from tests.database.pairs import write_pairs
from tests.download.sites import Site, site
from tests.download.test_stage import plan
from tests.faults.test_killed import decoders_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("real_processes")]

LONGEST_S = 240  # for a hang: a machine that does much else takes a minute to start a process
SHARD = [f"shards/C/000000007{end}" for end in (".tar", ".parquet")]
URLS = [f"http://{host}.ours.example/{n}.jpg" for host in "abc" for n in range(40)]


@pytest.fixture(scope="module")
def web() -> Iterator[Site]:
    with site() as running:
        yield running


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def settings_for(web: Site, **changes: object) -> Settings:
    settings = DownloadSettings(connect_to=(f"*.example=127.0.0.1:{web.port}",), decoders=2)
    return Settings(download=replace(settings, **changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def undisturbed(web: Site, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    store = LocalStore(tmp_path_factory.mktemp("undisturbed"))
    plan(store, URLS)
    assert download_batch("C", 7, settings_for(web), store).kept == len(URLS)
    return [store.read(name) for name in SHARD]


def test_killed_decoders_change_nothing(web: Site, store: Store, undisturbed: list[bytes]) -> None:
    plan(store, URLS)
    killed: list[int] = []

    def kill_one(done: int, _: int) -> None:
        if done % 30 == 0:
            pid = decoders_of(os.getpid())[0]
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    download_batch("C", 7, settings_for(web), store, Hooks(kill_one))
    assert len(set(killed)) >= 3
    assert [store.read(name) for name in SHARD] == undisturbed


def test_an_s3_server_killed_in_an_upload(
    web: Site, undisturbed: list[bytes], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "ACCESS_KEY_ID": "t",
        "SECRET_ACCESS_KEY": "t",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(s3_retry, "PAUSES_S", (0.0,))  # the killed server does not come back
    server = moto(port)

    def at_the_tar(data: bytes) -> None:
        if data.startswith(b"PUT ") and b".tar" in data.partition(b"\r\n")[0]:
            server.kill()
            server.wait()

    try:
        with tapped(port, at_the_tar) as endpoint, s3_at(endpoint, monkeypatch) as store:
            plan(store, URLS)
            with pytest.raises(StorageError):
                download_batch("C", 7, settings_for(web), store)
        assert server.returncode == -signal.SIGKILL
        server = moto(port)  # it keeps everything in memory: bucket and batch have to be there again
        with s3_at(f"http://127.0.0.1:{port}", monkeypatch) as store:
            plan(store, URLS)
            download_batch("C", 7, settings_for(web), store)
            assert [store.read(name) for name in SHARD] == undisturbed
    finally:
        server.kill()
        server.wait()


@contextmanager
def s3_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    storage.s3_client.cache_clear()
    try:
        boto3.client("s3").create_bucket(Bucket="killed")
        yield open_store("s3://killed/laion")
    finally:
        storage.s3_client.cache_clear()


def moto(port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + LONGEST_S
    while True:
        with suppress(urllib3.exceptions.HTTPError):
            urllib3.request("GET", f"http://127.0.0.1:{port}/", retries=False)
            return process
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def tapped(port: int, look: Callable[[bytes], None]) -> Iterator[str]:
    """A proxy to the server that inspects every part that a client sends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket, look: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                look(data)
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", port))
                except OSError:
                    client.close()
                    continue
                for way in ((client, server, look), (server, client, lambda _: None)):
                    threading.Thread(target=pump, args=way, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


@pytest.mark.parametrize(("grace_s", "finished"), [(30, True), (0, False)])
def test_sigterm_lets_a_download_worker_finish_or_give_back(
    settings: Settings, tmp_path: Path, grace_s: int, finished: bool
) -> None:
    with site() as web, open_database(settings) as database:
        web.delay_s = 0.4
        store = LocalStore(tmp_path / "store")
        write_pairs(store, "C", 0, [(f"http://img.example/{n}.jpg", f"image {n}") for n in range(30)])
        load_partition("C", 0, settings, store, database)
        plan_batches("C", settings, store, database)
        environment = {
            **os.environ,
            "LAION_ETL_STORE": str(tmp_path / "store"),
            "LAION_ETL_DATABASE_URL": settings.core.database_url,
            "LAION_ETL_DOWNLOAD_CONNECT_TO": f"*.example=127.0.0.1:{web.port}",
            "LAION_ETL_DOWNLOAD_GRACE_S": str(grace_s),
            "LAION_ETL_DOWNLOAD_CONNECTIONS": "4",
        }
        command = [sys.executable, "-m", "laion_etl", "stage", "download", "--crawl", "C"]
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as running:
            end = time.monotonic() + LONGEST_S
            while len(web.image_requests()) < 4:
                assert running.poll() is None, running.stdout and running.stdout.read()
                assert time.monotonic() < end
                time.sleep(0.05)
            while running.poll() is None:  # to its decoders, too, as systemd does
                with suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGTERM)
                time.sleep(0.02)
            output, _ = running.communicate(timeout=LONGEST_S)
        assert running.returncode == 130, output  # not 0: the queue may have more
        assert "run the same command again to continue" in output
        assert "Traceback" not in output
        rows = database.connection.execute(
            "select state::text, attempts + download_attempts from batch"
        ).fetchall()
        written = store.list("shards/")
    assert rows == [("downloaded", 1)] if finished else rows == [("ready", 0)]
    assert bool(written) is finished
    if finished:
        (stats,) = (store.read_stats(name) for name in written if name.endswith("_stats.json"))
        assert (stats.kept, stats.dropped) == (30, {})
    assert len(web.image_requests()) == 30 if finished else len(web.image_requests()) < 30
