"""Raw shards that are deleted while something else is at work on them."""

import hashlib
from collections.abc import Container
from typing import BinaryIO

import pytest

from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.core.ids import batch_name
from laion_etl.dataset import rewrite_shards
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import SequentialFile, copy_without
from laion_etl.minicrawl.scenes import Scene
from tests.score.conftest import CRAWL, fitting, write_shard


def test_a_tar_that_is_deleted_while_a_removal_rewrites_it_does_not_come_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept = (fitting(Scene("red", "star", "beach", "two"), seed=seed) for seed in (0, 1))
    before = write_shard(store, [gone, kept], 1)
    stem = f"shards/{CRAWL}/{batch_name(1)}"

    def copy_and_delete(source: BinaryIO, target: SequentialFile, keys: Container[str]) -> None:
        copy_without(source, target, keys)
        store.delete(f"{stem}.tar")

    monkeypatch.setattr(rewrite_shards, "copy_without", copy_and_delete)
    request = Request({"sha256": (hashlib.sha256(gone.image or b"").hexdigest(),)})
    rewrite_shards.rewrite_shard(stem, store, Matcher([request], 31))
    assert not store.exists(f"{stem}.tar")
    stats = store.read_stats(f"{stem}_stats.json")
    assert (before.kept, stats.kept) == (2, 1)
    assert [one.name for one in stats.outputs] == [one.name for one in before.outputs]
