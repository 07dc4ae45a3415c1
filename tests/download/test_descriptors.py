"""A worker that may open few files says so before it downloads, and opens no more than it may."""

import resource
from pathlib import Path

import pytest

from laion_etl.core.errors import SettingsError
from laion_etl.database.connection import Database
from laion_etl.database.load import load_partition
from laion_etl.download.concurrency import AdaptiveConcurrency
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.storage import LocalStore
from laion_etl.plan.stage import plan_batches
from laion_etl.settings import Settings
from tests.database.pairs import numbered_pairs, write_pairs


def limit_files(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Of downloads: this process could not raise a real limit again."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (number, number))


def test_a_worker_that_may_open_64_files_ends_with_one_line_and_returns_its_batch(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    write_pairs(store, "C", 0, numbered_pairs(0, 2))
    load_partition("C", 0, settings, store, database)
    plan_batches("C", settings, store, database)
    limit_files(monkeypatch, 64)
    with pytest.raises(
        SettingsError, match=r"may open only 64 files; raise the limit to 128 or more"
    ) as ended:
        Worker("C", settings, store, open_queue("C", settings, database)).run()
    assert len(str(ended.value).splitlines()) == 1
    rows = database.connection.execute("select state::text, attempts + download_attempts from batch")
    assert rows.fetchall() == [("ready", 0)]


def test_links_in_flight_begin_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 of them is what a download begins with otherwise."""
    limit_files(monkeypatch, 300)
    assert AdaptiveConcurrency().limit == 22
    limit_files(monkeypatch, 128)
    assert AdaptiveConcurrency().limit == 16


def test_a_number_of_links_that_needs_more_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_files(monkeypatch, 1_024)
    assert AdaptiveConcurrency(464).limit == 464
    with pytest.raises(SettingsError, match=r"cannot download 465 links at a time: .* to 1026 or more"):
        AdaptiveConcurrency(465)
