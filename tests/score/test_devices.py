"""A process for each device; two CPUs stand in for GPUs."""

from dataclasses import replace
from pathlib import Path

import pytest

from laion_etl.core.errors import ModelError, OutageError
from laion_etl.io.storage import LocalStore
from laion_etl.score.multi_gpu import devices, score_everywhere
from laion_etl.score.stage import score_shards
from laion_etl.settings import ClipSettings
from tests.score.conftest import (
    CRAWL,
    TINY,
    TINY_SETTINGS,
    TOOLS,
    fitting,
    scored_files,
    set_environment,
    write_shard,
)
from tests.score.test_stage import HEART, MOON, STAR

TWO = replace(TINY_SETTINGS, clip=replace(TINY, device="cpu,cpu"))


def shards(folder: Path) -> LocalStore:
    store = LocalStore(folder)
    for batch, scene in enumerate((STAR, HEART, MOON)):
        write_shard(store, [fitting(scene), fitting(STAR)], batch)
    return store


def test_devices_are_named_or_found() -> None:
    assert devices(ClipSettings(device="cuda:0, cuda:2")) == ["cuda:0", "cuda:2"]
    assert devices(ClipSettings(device="cpu")) == ["cpu"]
    assert devices(ClipSettings(device="auto"))


def test_two_processes_give_the_files_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = shards(tmp_path / "alone")
    expected = score_shards(CRAWL, [0, 1, 2], TINY_SETTINGS, alone, tools=TOOLS)
    together = shards(tmp_path / "together")
    set_environment(monkeypatch, tmp_path / "together")
    seen = []
    assert score_everywhere(CRAWL, [0, 1, 2], TWO, together, seen.append) == expected == seen
    assert scored_files(together) == scored_files(alone)


def test_a_device_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = LocalStore(tmp_path / "store")  # there are no shards in it
    monkeypatch.setenv("LAION_ETL_STORE", str(tmp_path / "store"))
    with pytest.raises(ModelError, match="cannot score on cpu, cpu"):
        score_everywhere(CRAWL, [0, 1, 2], TWO, store)
    said = capfd.readouterr().err
    assert "000000000_stats.json" in said
    assert "000000001_stats.json" in said


def test_an_outage_of_all_devices_that_failed_is_one_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = shards(tmp_path / "store")
    monkeypatch.setenv("LAION_ETL_STORE", "s3://laion/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(OutageError, match="cannot score on cpu, cpu: an outage ended it"):
        score_everywhere(CRAWL, [0, 1, 2], TWO, store)
