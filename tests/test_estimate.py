"""Estimates for a crawl, in proportion to the results in the store."""

import json

import pytest

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import StageStats
from laion_etl.io.storage import Store
from laion_etl.report.estimate import estimate, in_pods, read_totals
from laion_etl.settings import KubernetesSettings
from tests.publish.world import CRAWL, build_world, write_world

OTHER = "CC-MAIN-2024-38"


def known(store: Store) -> None:
    """Three batches of 80 links, half of them images, with the other figures of the real stages."""
    write_world(build_world(), store)
    name = f"pairs/{CRAWL}/part-00000.json"
    parsed: StageStats = store.read_stats(name)
    document = json.loads(store.read(name))
    document["details"] |= {"wat_files": 2, "records": {"input": 900}}
    store.write(name, json.dumps(document).encode())
    for batch in range(3):
        name = f"shards/{CRAWL}/{batch:09d}_stats.json"
        document = json.loads(store.read(name))
        document["details"]["network"] = {"bytes": 1_000_000, "seconds": 12.0}
        store.write(name, json.dumps(document).encode())
    assert parsed.kept == 330


def test_a_dump_is_so_many_times_its_sample(store: Store) -> None:
    known(store)
    sample = read_totals(CRAWL, store)
    assert (sample.wat_files, sample.pairs, sample.new_pairs, sample.links) == (2, 330, 240, 240)
    found = estimate(CRAWL, 2_000, store)
    assert (found.by_crawl, found.by_wat_files) == (CRAWL, 2)
    assert found.pairs == 330_000
    assert found.links == 240_000
    assert found.images == 120_000
    assert found.fetched_bytes == 3_000_000_000
    assert found.download_hours == 10.0
    assert found.samples == sample.kept * 1_000
    assert found.parse_hours == round(900 * 1_000 * 170e-6 / 3_600, 3)
    assert found.score_hours == round(120_000 * 0.19 / 3_600, 3)


def test_pods_of_more_cores_take_fewer_hours_and_cost_what_the_settings_say(store: Store) -> None:
    known(store)
    found = estimate(CRAWL, 2_000, store)
    pods = in_pods(found, KubernetesSettings(cpu=("parse=4", "score=2"), price_hour=0.5))
    hours = found.parse_hours / 4 + found.download_hours + found.score_hours / 2
    assert pods == {"pod_hours": round(hours, 3), "cost": round(hours * 0.5, 2)}
    gpus = KubernetesSettings(cpu=("other=500m",), gpus=1, gpu_price_hour=3.0)
    assert in_pods(found, gpus)["cost"] == round(found.score_hours * 2 * 3, 2)
    assert "cost" not in in_pods(found, KubernetesSettings())


def test_links_that_wait_for_their_download_are_counted_in(store: Store) -> None:
    known(store)
    for name in store.list(f"shards/{CRAWL}"):
        if "000000002" in name:
            store.delete(name)
    found = estimate(CRAWL, 2, store)
    assert (found.links, found.images) == (240, 120)


def test_another_crawl_serves_when_there_is_none_of_this_one(store: Store) -> None:
    known(store)
    assert estimate(OTHER, 4, store).by_crawl == CRAWL
    assert estimate(OTHER, 4, store).links == 480


def test_nothing_to_go_by_says_what_to_do(store: Store) -> None:
    with pytest.raises(InputError, match="run two WAT files first"):
        estimate(CRAWL, 2, store)
    write_world(build_world(), store)
    for name in store.list("load"):
        store.delete(name)
    with pytest.raises(InputError, match="run two WAT files first"):
        estimate(CRAWL, 2, store)
