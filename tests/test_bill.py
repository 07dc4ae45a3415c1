"""What a crawl used and cost: recorded by its processes, added up, priced."""

import errno
import io
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from laion_etl.core import usage_counters
from laion_etl.core.errors import (
    DatabaseOutageError,
    InputError,
    NotLoadedError,
    SettingsError,
    StoreOutageError,
)
from laion_etl.core.usage import ApartProcess, Usage, cpu_seconds, recorded_apart
from laion_etl.core.usage_counters import FOLDER, Counter, count
from laion_etl.io import usage_records
from laion_etl.io.abandoned_folders import locked_folder
from laion_etl.io.storage import LocalStore, Store
from laion_etl.io.usage_records import UsageReader, UsageRecord, usage_recorded
from laion_etl.publish.stage import publish_dataset
from laion_etl.report.bill import Bill, Cost, StageBill, make_bill, read_bill
from laion_etl.settings import KubernetesSettings, PricesSettings, PublishSettings, Settings
from tests.parse.wat_files import image, page_record, write_wat
from tests.preloaded_commands import completed
from tests.publish.world import CRAWL as WORLD
from tests.publish.world import build_world, write_world

CRAWL = "CC-MAIN-2024-38"
NOW = 2_000_000_000.0
PRICES = PricesSettings(core_hour=0.1, gpu_hour=2.0, store_writes=1.0, store_reads=0.5, nat_gb=0.05)


def recorded(store: Store) -> UsageRecord:
    [record] = UsageReader(CRAWL).records(store)
    return record


def record(stage: str, usage: Usage, *, running: bool = False) -> UsageRecord:
    return UsageRecord(CRAWL, stage, "0", 2, 0, NOW, running, usage, usage.pod_s)


def test_a_record_has_the_processor_time_and_counts_of_this_process_and_its_children(store: Store) -> None:
    with usage_recorded(CRAWL, "parse", "7", store):
        count(Counter.WEB_BYTES, 100)
        subprocess.run(
            [sys.executable, "-m", "tests.counting_child"], check=True, cwd=Path(__file__).parents[1]
        )
    found = recorded(store)
    assert (found.stage, found.unit, found.running) == ("parse", "7", False)
    assert found.usage.web_bytes == 100 + 23
    assert found.usage.cpu_s > 0  # of the child: this process only waited
    assert found.usage.core_s == pytest.approx(found.usage.pod_s * found.cores, abs=0.01)


def test_a_forked_child_adds_to_the_counts_and_spoils_none(store: Store) -> None:
    with usage_recorded(CRAWL, "parse", "7", store):
        count(Counter.WEB_BYTES, 1)
        if not (pid := os.fork()):
            count(Counter.WEB_BYTES, 10)
            os._exit(0)
        os.waitpid(pid, 0)
        count(Counter.WEB_BYTES, 100)
    assert recorded(store).usage.web_bytes == 111


def test_what_a_child_records_is_part_of_its_parents_record(store: Store) -> None:
    with usage_recorded(CRAWL, "score", "0/1", store), usage_recorded(CRAWL, "score", "named", store):
        count(Counter.STORE_READS, 3)
    assert recorded(store).usage.store_reads == 3
    assert store.list("usage")[0].startswith(f"usage/{CRAWL}/score/0-of-1-")


def test_nothing_is_counted_before_a_record_begins(store: Store) -> None:
    count(Counter.WEB_BYTES, 5)
    with usage_recorded(CRAWL, "parse", "0", store):
        pass
    assert recorded(store).usage.web_bytes == 0


def test_ctrl_c_while_a_record_begins_leaves_no_thread(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), usage_recorded(CRAWL, "parse", "0", store):
        pass
    [thread] = started
    thread.join(240)
    assert not thread.is_alive()
    assert FOLDER not in os.environ


def test_a_failed_attempt_is_recorded_too_unless_it_was_short(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="x"), usage_recorded(CRAWL, "parse", "0", store):
        raise ValueError("x")
    assert store.list("usage") == []
    monkeypatch.setattr(usage_records, "_SHORT_S", 0.0)
    for refusal in (InputError, SettingsError, NotLoadedError):  # before any work, though it took a second
        with pytest.raises(refusal), usage_recorded(CRAWL, "parse", "0", store):
            raise refusal("cannot find C: nothing of it is loaded; load it")
    assert store.list("usage") == []
    with pytest.raises(ValueError, match="x"), usage_recorded(CRAWL, "parse", "0", store):
        count(Counter.WEB_BYTES, 5)
        raise ValueError("x")
    assert recorded(store).usage.web_bytes == 5


def test_a_record_that_cannot_be_written_does_not_fail_the_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "usage").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING), usage_recorded(CRAWL, "parse", "0", LocalStore(tmp_path)):
        pass
    assert "what parse 0 uses is not recorded" in caplog.text


def test_a_process_that_only_begins_to_count_does_not_fail_the_work(store: Store) -> None:
    """Its file is made before it has a size."""
    with usage_recorded(CRAWL, "parse", "0", store):
        count(Counter.WEB_BYTES, 5)
        (Path(os.environ[FOLDER]) / "1234").touch()
    assert recorded(store).usage.web_bytes == 5


def test_a_process_with_the_number_of_one_that_has_ended_keeps_its_counts(store: Store) -> None:
    with usage_recorded(CRAWL, "parse", "0", store):
        for _ in range(2):
            usage_counters._forget()  # what a new process knows
            count(Counter.WEB_BYTES, 5)
    assert recorded(store).usage.web_bytes == 10


def test_a_folder_that_another_command_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, mkdtemp = [], tempfile.mkdtemp

    def removed_once(*args: Any, **options: Any) -> str:
        made.append(mkdtemp(*args, **options))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkdtemp", removed_once)
    with locked_folder("laion-etl-usage-") as name:
        assert [Path(name)] == list(tmp_path.iterdir())


def test_the_folder_of_a_killed_command_is_removed_by_the_next_one_and_no_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "laion-etl-usage-file").touch()
    (tmp_path / "laion-etl-usage-elsewhere").symlink_to(tmp_path / "store")
    before, pids = set(tmp_path.iterdir()), []
    for _ in range(2):
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            with usage_recorded(CRAWL, "parse", "0", store):
                count(Counter.WEB_BYTES, 5)
                os.write(writing, b"begun")
                signal.pause()
        os.close(writing)
        assert os.read(reading, 5) == b"begun"
        os.close(reading)
        pids.append(pid)
    killed, lives = pids
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    try:
        assert len(set(tmp_path.iterdir()) - before) == 2
        with usage_recorded(CRAWL, "parse", "0", store):
            left = set(tmp_path.iterdir()) - before - {Path(os.environ[FOLDER])}
            assert [file.name.split("-")[0] for one in left for file in one.iterdir()] == [str(lives)]
            assert before <= set(tmp_path.iterdir())
    finally:
        os.kill(lives, signal.SIGKILL)
        os.waitpid(lives, 0)


def test_on_a_full_disk_the_work_goes_on_uncounted(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING), usage_recorded(CRAWL, "parse", "0", store):
        count(Counter.WEB_BYTES, 5)
    assert recorded(store).usage.web_bytes == 0
    assert "cannot count what process" in caplog.text
    assert "No space left on device" in caplog.text


def test_without_a_temporary_folder_only_time_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(tmp_path / "store")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with caplog.at_level(logging.WARNING), usage_recorded(CRAWL, "score", "0", store):
        count(Counter.WEB_BYTES, 5)
        with usage_recorded(CRAWL, "score", "child", store):
            pass
    found = recorded(store)
    assert (found.unit, found.usage.web_bytes) == ("0", 0)
    assert found.usage.pod_s > 0
    assert caplog.text.count("cannot count") == 1


def test_time_is_recorded_after_the_temporary_folder_was_deleted(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), usage_recorded(CRAWL, "download", "worker", store):
        shutil.rmtree(os.environ[FOLDER])
    assert recorded(store).usage.pod_s > 0
    assert "cannot count more requests and bytes" in caplog.text


def test_a_failure_to_measure_does_not_fail_the_work(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def gpus() -> int:
        raise RuntimeError("CUDA is gone")

    with caplog.at_level(logging.WARNING), usage_recorded(CRAWL, "score", "0", store, gpus):
        pass
    assert "what score 0 uses is not recorded: CUDA is gone" in caplog.text


def test_a_child_with_a_record_of_its_own_is_not_counted_twice(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-m", "tests.counting_child"], cwd=Path(__file__).parents[1])
    with recorded_apart(ApartProcess(child.pid)):
        with usage_recorded(CRAWL, "download", "worker", store):
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        without = cpu_seconds()
    together = cpu_seconds()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    in_ticks = used.ru_utime + used.ru_stime - 0.02  # both are rounded down to hundredths
    assert together - without > in_ticks > 0
    found = recorded(store)
    assert (found.usage.pod_s, found.usage.core_s) == (0, 0), "the child has the machine"
    assert found.ran_s > 0


def test_a_child_has_the_machine_for_as_long_as_it_runs() -> None:
    assert ApartProcess(1, began=10, ended=20).ran_s(5, 30) == 10
    assert ApartProcess(1, began=10, ended=20).ran_s(12, 15) == 3
    assert ApartProcess(1, began=10, ended=20).ran_s(25, 30) == 0
    assert ApartProcess(1, began=10).ran_s(12, 30) == 18


def test_an_outage_of_the_store_is_not_prolonged_by_the_record(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_records, "_SHORT_S", 0.0)
    with pytest.raises(StoreOutageError), usage_recorded(CRAWL, "parse", "0", store):
        raise StoreOutageError("cannot write x: the store is full; free space")
    assert store.list("usage") == []
    with pytest.raises(DatabaseOutageError), usage_recorded(CRAWL, "load", "0", store):
        raise DatabaseOutageError("cannot connect to Postgres: it is down; start it")
    assert recorded(store).stage == "load"


def test_requests_of_a_bucket_and_their_bytes_are_counted(s3_store: Store, store: Store) -> None:
    with usage_recorded(CRAWL, "download", "worker", store):
        s3_store.write("a", b"x" * 1_000)
        assert s3_store.read("a") == b"x" * 1_000
        assert s3_store.exists("a")
        assert s3_store.list("") == ["a"]
        s3_store.delete("a")
    used = recorded(store).usage
    assert (used.store_writes, used.store_reads) == (2, 2)  # PUT, LIST; GET, HEAD; DELETE is free
    assert 1_000 <= used.store_bytes_sent < 1_100
    assert 1_000 <= used.store_bytes_received < 4_000


def test_records_that_have_not_changed_are_not_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        store.write(f"usage/{CRAWL}/load/{number}.json", record("load", Usage(pod_s=number)).to_json())
    reader, read = UsageReader(CRAWL), []
    real = store.read_with_age
    monkeypatch.setattr(store, "read_with_age", lambda name: read.append(name) or real(name))
    assert len(reader.records(store)) == 3
    store.write(f"usage/{CRAWL}/load/1.json", record("load", Usage(pod_s=77)).to_json())
    store.delete(f"usage/{CRAWL}/load/2.json")
    assert [one.usage.pod_s for one in reader.records(store)] == [0, 77]
    assert len(read) == 4


def test_a_process_that_has_stopped_writing_no_longer_runs_whatever_the_clocks_say(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the process that wrote it is years ahead, and ours as much behind."""
    store.write(f"usage/{CRAWL}/load/0.json", record("load", Usage(), running=True).to_json())
    seconds = [5_000.0]
    clock = SimpleNamespace(time=lambda: 0.0, monotonic=lambda: seconds[0])
    monkeypatch.setattr("laion_etl.io.usage_records.time", clock)
    reader = UsageReader(CRAWL)
    assert [one.running for one in reader.records(store)] == [True]
    seconds[0] += 200
    assert [one.running for one in reader.records(store)] == [True]
    seconds[0] += 200
    assert [one.running for one in reader.records(store)] == [False]
    _, age_s = store.read_with_age(f"usage/{CRAWL}/load/0.json")
    assert -1 <= age_s < 200


def test_a_damaged_record_is_left_out(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.write(f"usage/{CRAWL}/load/0.json", b"{")
    store.write(f"usage/{CRAWL}/load/1.json", json.dumps({"format": 99}).encode())
    store.write(f"usage/{CRAWL}/load/2.json", record("load", Usage(pod_s=1)).to_json())
    whole = json.loads(record("load", Usage()).to_json())
    damaged = (
        whole | {"cores": math.inf},
        whole | {"written_at": math.nan},
        whole | {"usage": whole["usage"] | {"core_s": math.inf}},
        whole | {"usage": whole["usage"] | {"web_requests": 10**400}},
        whole | {"usage": whole["usage"] | {"store_writes": -1}},
    )
    for number, plain in enumerate(damaged, start=3):
        store.write(f"usage/{CRAWL}/load/{number}.json", json.dumps(plain).encode())
    store.write(f"usage/{CRAWL}/load/9.json", b"[" * 5_000)
    assert [one.usage.pod_s for one in UsageReader(CRAWL).records(store)] == [1]
    assert "the bill leaves out" in caplog.text


def test_a_bill_prices_pods_by_their_cores_or_gpus_and_requests_and_bytes_through_a_nat_gateway() -> None:
    records = [
        record("score", Usage(pod_s=3_600, core_s=14_400, gpu_s=7_200)),
        record("download", Usage(pod_s=3_600, core_s=7_200, web_bytes=2_000_000_000, store_writes=3_000)),
        record("download", Usage(pod_s=1_800, core_s=3_600, store_reads=4_000)),
    ]
    bill = make_bill(CRAWL, records, Settings(prices=PRICES))
    download, score = bill.stages
    assert (download.stage, download.processes, score.stage) == ("download", 2, "score")
    assert download.cost.pods == pytest.approx(0.3)
    assert download.cost.requests == pytest.approx(3 + 2)
    assert download.cost.nat == pytest.approx(0.1)
    assert score.cost.pods == pytest.approx(4)
    assert bill.cost.total == pytest.approx(9.4)
    assert bill.per_hour == 0


def test_a_pod_with_a_price_of_its_own_costs_that_whatever_its_cores() -> None:
    pods = KubernetesSettings(price_hour=1.5, gpu_price_hour=9.0)
    records = [
        record("score", Usage(pod_s=3_600, core_s=14_400, gpu_s=7_200)),
        record("parse", Usage(pod_s=7_200, core_s=7_200)),
    ]
    bill = make_bill(CRAWL, records, Settings(prices=PRICES, kubernetes=pods))
    assert [one.cost.total for one in bill.stages] == [3.0, 9.0]


def test_the_present_rate_is_that_of_processes_that_still_report() -> None:
    used = Usage(pod_s=1_800, core_s=3_600, web_bytes=1_000_000_000)
    running = record("download", used, running=True)
    bill = make_bill(
        CRAWL, [running, replace(running, running=False), replace(running, running=False)],
        Settings(prices=PRICES),
    )  # fmt: skip
    [download] = bill.stages
    assert (download.processes, download.running) == (3, 1)
    assert bill.per_hour == pytest.approx(2 * 0.1 + 2 * 0.05)
    assert bill.to_plain()["per_hour"] == 0.3


def test_the_rate_has_what_a_process_costs_besides_a_machine_that_another_one_pays_for() -> None:
    download = replace(record("download", Usage(web_bytes=2_000_000_000), running=True), ran_s=1_800.0)
    bill = make_bill(CRAWL, [download], Settings(prices=PRICES))
    assert bill.per_hour == pytest.approx(0.2)


@pytest.mark.parametrize("shown", [True, False])
def test_card_and_report_show_the_cost_where_the_publisher_wants_it(store: Store, *, shown: bool) -> None:
    write_world(build_world(), store)
    used = Usage(pod_s=36_000, core_s=72_000, cpu_s=9_000, store_writes=1_234)
    store.write(f"usage/{WORLD}/download/0.json", record("download", used).to_json())
    settings = Settings(publish=PublishSettings(costs=shown), prices=PRICES)
    stats = publish_dataset(WORLD, settings, store)
    folder = f"dataset/{stats.unit}"
    card = store.read(f"{folder}/README.md").decode()
    report = store.read(f"{folder}/report/index.html").decode()
    assert ("| download | 1 | 10.00 | 2.50 | 0.00 | 0.00 | 1,234 | 3.23 |" in card) is shown
    assert ('<h2 id="cost-title">Cost</h2>' in report) is shown
    assert ("<td>3.23</td>" in report) is shown


def test_a_command_records_what_it_used_and_status_shows_it(tmp_path: Path, store: Store) -> None:
    wat = write_wat(tmp_path / "a.wat.gz", [page_record("https://e.org/", [image("a.jpg", "A red car")])])
    parse_command = ["stage", "parse", "--crawl", CRAWL, "--partition", "0", wat]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LAION_ETL_")}
    environment["LAION_ETL_STORE"] = store.uri()
    done = completed(["-m", "laion_etl", *parse_command], environment, tmp_path)
    assert done.returncode == 0, done.stderr
    found = recorded(store)
    assert (found.stage, found.unit) == ("parse", "0")
    assert found.usage.cpu_s > 0
    bill = read_bill(CRAWL, Settings(prices=PRICES), store)
    assert bill.cost.total == pytest.approx(found.usage.core_s * 0.1 / 3_600)
    assert "Cost so far" in printed(bill)


def printed(bill: Bill) -> str:
    """The table as a terminal of 80 characters shows it."""
    console = Console(file=io.StringIO(), width=80)
    console.print(bill.as_table())
    return console.file.getvalue()


def test_the_printed_bill_of_a_whole_crawl_fits_into_a_terminal() -> None:
    used = Usage(
        pod_s=3_600 * 12_345, cpu_s=3_600 * 23_456, gpu_s=3_600 * 1_234, web_bytes=123_456 * 10**9,
        store_bytes_sent=98_765 * 10**9, store_writes=98_765_432, store_reads=1_234_567,
    )  # fmt: skip
    stages = [StageBill("download", 90_000, 500, used, Cost(12_345.67), 321.98)]
    lines = printed(Bill(CRAWL, tuple(stages))).splitlines()
    assert lines[-1].split() == [
        "download", "90,000", "12,345", "23,456", "1,234", "123,456", "98,765", "99,999,999", "12,346", "322",
    ]  # fmt: skip
