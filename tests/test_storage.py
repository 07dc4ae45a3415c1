import contextlib
import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from laion_etl.core.errors import ChangedError, InputError, MissingFileError, StorageError, StoreOutageError
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.storage import LocalStore, Store, local, local_copy, open_store, s3_client, s3_upload
from laion_etl.io.storage.s3_retry import retried
from tests.fake_clock import FakeClock


def test_a_written_file_reads_back_and_is_listed(any_store: Store) -> None:
    output = any_store.write("pairs/C/part-00001.parquet", b"hello")
    assert any_store.read("pairs/C/part-00001.parquet") == b"hello"
    assert any_store.list("pairs/C") == ["pairs/C/part-00001.parquet"]
    assert any_store.list("pairs") == ["pairs/C/part-00001.parquet"]
    assert any_store.list("shards") == []
    assert (output.name, output.bytes) == ("pairs/C/part-00001.parquet", 5)
    assert output.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_a_copy_has_the_same_bytes_and_is_guarded_like_a_write(any_store: Store) -> None:
    output = any_store.write("a/one", b"data")
    any_store.copy(output, "b/two")
    any_store.copy(output, "b/two", lambda: None)  # again, as after a kill
    assert (any_store.read("b/two"), any_store.read("a/one")) == (b"data", b"data")

    def refuse() -> None:
        raise InputError("cannot write: the version is visible")

    with pytest.raises(InputError, match="the version is visible"):
        any_store.copy(any_store.write("a/three", b"other"), "b/two", refuse)
    assert any_store.read("b/two") == b"data"
    any_store.delete("a/one")
    with pytest.raises(MissingFileError):
        any_store.copy(output, "b/two")
    assert any_store.list("b") == ["b/two"]


def test_a_copy_replaces_nothing_that_was_written_after_its_guard(s3_store: Store) -> None:
    """Of a process that is suspended in between."""
    output, calls = s3_store.write("a/one", b"old"), []

    def overtaken() -> None:
        calls.append(s3_store.write("b/two", b"new" + bytes(len(calls))))

    with pytest.raises(ChangedError):
        s3_store.copy(output, "b/two", overtaken)
    assert s3_store.read("b/two").startswith(b"new")


def test_a_range_is_read_without_the_rest(any_store: Store) -> None:
    any_store.write("a", b"0123456789")
    assert any_store.read_range("a", 3, 4) == b"3456"
    assert any_store.read_range("a", 8, 4) == b"89"
    with pytest.raises(StorageError, match="does not exist"):
        any_store.read_range("b", 0, 1)


def test_a_local_copy_is_the_file_itself_or_fetched_once_and_checked(
    store: LocalStore, s3_store: Store, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert local_copy(store, store.write("a/b.bin", b"data"), cache) == store.root / "a/b.bin"
    output = s3_store.write("a/b.bin", b"data")
    copy = local_copy(s3_store, output, cache)
    assert copy.read_bytes() == b"data"
    s3_store.write("a/b.bin", b"date")
    assert local_copy(s3_store, output, cache) == copy
    copy.unlink()
    with pytest.raises(StorageError, match="SHA-256 is not the one in its stats"):
        local_copy(s3_store, output, cache)
    assert not copy.exists()


def test_a_prefix_lists_its_folder_only(any_store: Store) -> None:
    any_store.write("pairs/C/a", b"")
    any_store.write("pairs/C2/a", b"")
    assert any_store.list("pairs/C") == ["pairs/C/a"]


def test_a_failing_writer_leaves_what_was_there(any_store: Store) -> None:
    any_store.write("a", b"old")
    with pytest.raises(RuntimeError), any_store.create("a") as file:
        file.write(b"half of the new")
        raise RuntimeError
    assert any_store.read("a") == b"old"
    assert any_store.list("") == ["a"]


def test_a_file_is_swapped_only_if_no_other_process_wrote_it(any_store: Store) -> None:
    assert any_store.read_with_etag("a") is None
    assert any_store.swap("a", b"one", None).bytes == 3
    for etag in (None, "another"):
        with pytest.raises(ChangedError, match="a: another process modified it meanwhile"):
            any_store.swap("a", b"two", etag)
    found = any_store.read_with_etag("a")
    assert found is not None
    assert found[0] == b"one"
    assert any_store.swap("a", b"two", found[1]).sha256 == any_store.write("b", b"two").sha256
    with pytest.raises(ChangedError):
        any_store.swap("a", b"three", found[1])
    any_store.delete("a")
    with pytest.raises(ChangedError):
        any_store.swap("a", b"three", found[1])
    assert any_store.list("") == ["b"]


def test_a_server_without_conditional_writes_is_looked_at_before(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3_client()
    put = client.put_object

    def refusing(**arguments: Any) -> Any:
        if {"IfMatch", "IfNoneMatch"} & arguments.keys():
            raise ClientError({"Error": {"Code": "NotImplemented"}}, "PutObject")
        return put(**arguments)

    monkeypatch.setattr(client, "put_object", refusing)
    s3_store.swap("a", b"one", None)
    with pytest.raises(ChangedError):
        s3_store.swap("a", b"two", None)
    found = s3_store.read_with_etag("a")
    assert found is not None
    s3_store.swap("a", b"two", found[1])
    assert s3_store.read("a") == b"two"


class _LeaseLost(Exception):  # noqa: N818 - a signal
    pass


def test_a_guard_that_raises_keeps_what_was_there(any_store: Store) -> None:
    any_store.write("a", b"old")

    def lost() -> None:
        raise _LeaseLost

    with pytest.raises(_LeaseLost):
        any_store.write("a", b"new", lost)
    assert any_store.list("") == ["a"]
    assert any_store.read("a") == b"old"


@pytest.mark.parametrize("before", [None, b"old"])
def test_what_was_written_after_the_guard_had_passed_is_not_replaced(
    any_store: Store, before: bytes | None
) -> None:
    """As by a process that is suspended between guard and write, and whose lease is lost when it wakes up."""
    if before is not None:
        any_store.write("a", before)
    calls = 0

    def guard() -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise _LeaseLost
        any_store.write("a", b"of the next owner")

    with pytest.raises(_LeaseLost):
        any_store.write("a", b"late", guard)
    assert any_store.read("a") == b"of the next owner"
    assert any_store.list("") == ["a"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_whose_guard_still_passes_replaces_what_a_former_owner_wrote_late(
    any_store: Store, before: bytes | None
) -> None:
    if before is not None:
        any_store.write("a", before)
    late = iter([b"one", b"two"])

    def guard() -> None:
        if data := next(late, None):
            any_store.write("a", data)

    any_store.write("a", b"of the owner", guard)
    assert any_store.read("a") == b"of the owner"
    assert any_store.list("") == ["a"]


def test_a_guarded_file_may_be_large(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_upload, "_SINGLE_BYTES", 1_000)
    monkeypatch.setattr(s3_upload, "_PART_BYTES", 6 << 20)
    data, calls = os.urandom(1024) * 10_000, []
    s3_store.write("big", data, lambda: calls.append(1))
    assert s3_store.read("big") == data
    s3_store.delete("big")

    def late() -> None:
        calls.append(1)
        if len(calls) == 2:
            s3_store.write("big", b"of a former owner")

    s3_store.write("big", data, late)
    assert s3_store.read("big") == data
    assert len(calls) == 3
    uploads = s3_client().list_multipart_uploads(Bucket=s3_store.uri().split("/")[2])
    assert "Uploads" not in uploads


def test_a_file_whose_lock_is_held_by_a_suspended_process_is_an_outage(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LOCK_TIMEOUT_S", 0.0)
    store.write("a", b"old")
    path = store.root / "a"
    with path.open("r+b") as other:
        local._lock(other, path)
        with pytest.raises(StoreOutageError, match=r"write .*a: a process that is suspended holds its"):
            store.write("a", b"new", lambda: None)
    store.write("a", b"new", lambda: None)
    assert store.read("a") == b"new"
    assert store.list("") == ["a"]


def test_a_folder_without_hard_links_is_looked_at_before(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    store.write("a", b"one", lambda: None)
    assert store.read("a") == b"one"
    assert [path.name for path in store.root.iterdir()] == ["a"]


def test_of_many_who_swap_at_once_none_is_lost(store: LocalStore) -> None:
    def add(number: int) -> None:
        while True:
            data, etag = store.read_with_etag("count") or (b"", None)
            with contextlib.suppress(ChangedError):
                store.swap("count", data + bytes([number]), etag)
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert sorted(store.read("count")) == list(range(40))


def test_a_large_file_goes_through_multipart(s3_store: Store) -> None:
    data = os.urandom(1024) * 20_000
    s3_store.write("big", data)
    assert s3_store.read("big") == data


def test_the_files_of_a_folder_are_listed_between_two_names_with_their_etags(any_store: Store) -> None:
    for name in ("a/1", "a/10", "a/2", "a/3", "a/below/2", "b/2"):
        any_store.write(name, b"x")
    assert [file.name for file in any_store.files("a")] == ["a/1", "a/10", "a/2", "a/3"]
    assert [file.name for file in any_store.files("a", "10", "3")] == ["a/10", "a/2"]
    assert list(any_store.files("none")) == []
    before = {file.name: file.etag for file in any_store.files("a")}
    assert before.items() <= any_store.etags("a", "").items()
    any_store.write("a/2", b"another")
    (changed,) = any_store.files("a", "2", "3")
    assert changed.etag != before["a/2"]
    assert (changed.name, changed.bytes) == ("a/2", 7)


def test_deleting_is_idempotent(any_store: Store) -> None:
    any_store.write("a", b"x")
    any_store.delete("a")
    any_store.delete("a")
    assert not any_store.exists("a")


def test_a_missing_file_says_what_to_do(any_store: Store) -> None:
    with pytest.raises(
        MissingFileError, match=r"read .*missing: it does not exist; was the stage before it run"
    ):
        any_store.read("missing")


def test_a_missing_bucket_says_what_to_do(s3_endpoint: str) -> None:
    expected = r"s3://no-such-bucket-1/x/: no such bucket; create it or check LAION_ETL_STORE"
    with pytest.raises(StorageError, match=expected):
        open_store("s3://no-such-bucket-1/x").check()


def test_a_bucketless_uri_is_refused() -> None:
    with pytest.raises(StorageError, match="names no bucket"):
        open_store("s3:///x")


KILLED_WRITER = """
import os, sys
from pathlib import Path
from laion_etl.io.storage import LocalStore
with LocalStore(Path(sys.argv[1])).create("a") as file:
    file.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_writer_does_not_mind_that_another_one_ends_meanwhile(tmp_path: Path) -> None:
    (tmp_path / ".a.0123.partial").symlink_to(tmp_path / "nothing")  # listed, and gone when it is opened
    LocalStore(tmp_path).write("a", b"1")
    assert LocalStore(tmp_path).read("a") == b"1"


def test_the_leftover_of_a_killed_writer_is_hidden_and_removed_by_the_next(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        store.write("a", b"a living writer is not disturbed")
        assert len(list(tmp_path.iterdir())) == 2
        writer.send_signal(signal.SIGKILL)
    assert store.list("") == ["a"]
    store.write("a", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert store.read("a") == b"whole"


@pytest.mark.parametrize(
    "read",
    [
        LocalStore.read,
        LocalStore.open,
        lambda *of: LocalStore.read_range(*of, 0, 1),
        lambda store, name: local_copy(store, Output(name, 0, ""), Path("cache")),
    ],
)
def test_what_another_user_put_into_a_shared_folder_is_not_read(tmp_path: Path, read: Any) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("shards/C/a", b"data")
    (tmp_path / "secret").write_text("secret")
    os.mkfifo(tmp_path / "store/shards/C/fifo")
    (tmp_path / "store/shards/C/out").symlink_to(tmp_path / "secret")
    (tmp_path / "store/shards/C/in").symlink_to("a")
    with pytest.raises(StorageError, match=r"cannot read .*fifo: it is not a file; find out"):
        read(store, "shards/C/fifo")
    with pytest.raises(StorageError, match=r"cannot read .*out: it is a link that leads out of the store"):
        read(store, "shards/C/out")
    with pytest.raises(StorageError, match=r"'shards/\.\./\.\./secret' .* leads out of the store"):
        read(store, "shards/../../secret")
    assert store.read("shards/C/in") == b"data"


def test_a_folder_of_the_store_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store/shards").symlink_to(tmp_path / "disk")
    LocalStore(tmp_path / "store").write("shards/a", b"data")
    assert LocalStore(tmp_path / "store").read("shards/a") == b"data"


def test_a_writer_does_not_wait_for_a_fifo_that_is_named_like_a_leftover(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".a.0.partial")
    (tmp_path / ".a.1.partial").symlink_to("/dev/zero")
    LocalStore(tmp_path).write("a", b"data")
    assert LocalStore(tmp_path).read("a") == b"data"


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False)
    if not os.path.ismount(tmp_path):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with pytest.raises(StorageError, match="the disk is full; free space, or set LAION_ETL_STORE"):
            LocalStore(tmp_path).write("big", bytes(200_000))
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_finished_unit_is_reused_only_with_the_same_fingerprint(any_store: Store) -> None:
    stats = StageStats("parse", "C", "part-00000", "abc", input=3, kept=1, dropped={"no_alt": 2})
    any_store.write_stats("s.json", stats)
    assert any_store.finished("s.json", "abc") == stats
    assert any_store.finished("s.json", "other") is None
    assert any_store.finished("t.json", "abc") is None


def test_a_foreign_stats_file_is_named(any_store: Store) -> None:
    any_store.write("s.json", b"[1]")
    with pytest.raises(StorageError, match=r"s\.json: not a stats file"):
        any_store.read_stats("s.json")


def test_a_store_that_never_answers_is_noticed_within_minutes() -> None:
    """boto3's tries of a request, and ours of an action, multiply with the time that a server is silent."""
    clock = FakeClock()
    config = s3_client().meta.config
    longest_s = config.read_timeout * config.retries["total_max_attempts"]
    asked = []

    def silent() -> None:
        asked.append(clock.time())
        clock.now += longest_s
        raise ReadTimeoutError(endpoint_url="http://s3.example")

    with pytest.raises(ReadTimeoutError):
        retried(silent, clock.time)
    assert clock.now - asked[0] <= 240


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/hostname", "a/..", "a\0b"])
def test_a_name_that_leads_out_of_a_store_is_refused(name: str, any_store: Store, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    store = any_store
    a_file = store.write("a/file", b"x")
    calls = (
        store.read,
        store.read_with_etag,
        store.read_with_age,
        lambda name: store.read_range(name, 0, 1),
        store.exists,
        store.delete,
        store.list,
        store.folders,
        lambda name: list(store.files(name)),
        lambda name: store.write(name, b""),
        lambda name: store.write(name, b"", lambda: None),
        lambda name: store.swap(name, b"", None),
        lambda name: store.copy(a_file, name),
        lambda name: store.copy(replace(a_file, name=name), "a/copy"),
    )
    for call in calls:
        with pytest.raises(StorageError, match="leads out of the store; find out"):
            call(name)
    assert (tmp_path / "outside").read_text() == "secret"
    assert store.list("") == ["a/file"]


def test_a_name_that_is_too_long_is_an_error_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*: its name is too long for this file system"):
        LocalStore(tmp_path).write("a/" + "x" * 300, b"data")
