"""Estimates for a crawl, in proportion to the results in the store."""

import json

import pytest

from laion_etl.core.errors import InputError
from laion_etl.core.stage_stats import StageStats
from laion_etl.core.usage import Usage
from laion_etl.io.storage import Store
from laion_etl.io.usage_records import UsageRecord
from laion_etl.report.estimate import estimate, estimated_costs, read_totals
from laion_etl.settings import KubernetesSettings, PricesSettings, Settings
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
    free = PricesSettings(nat_gb=0)
    pods = KubernetesSettings(cpu=("parse=4", "score=2"), price_hour=0.5)
    costs = estimated_costs(found, Settings(kubernetes=pods, prices=free))
    hours = found.parse_hours / 4 + found.download_hours + found.score_hours / 2
    assert (costs["pod_hours"], costs["cost"]) == (round(hours, 3), round(hours * 0.5, 2))
    gpus = KubernetesSettings(cpu=("other=500m",), gpus=1, gpu_price_hour=3.0)
    costs = estimated_costs(found, Settings(kubernetes=gpus, prices=free))
    assert costs["cost_score"] == round(found.score_hours * 2 * 3, 2)


def test_without_a_price_of_pods_their_cores_are_priced_and_a_nat_gateway_by_the_gigabyte(
    store: Store,
) -> None:
    known(store)
    found = estimate(CRAWL, 2_000, store)
    pods = KubernetesSettings(cpu=("parse=4", "download=2", "score=2"))
    prices = PricesSettings(core_hour=0.1, nat_gb=0.05, store_gb_month=0.02, egress_gb=0.1)
    costs = estimated_costs(found, Settings(kubernetes=pods, prices=prices))
    assert costs["cost_nat_gateway"] == 0.15  # 3 GB
    assert costs["cost_download"] == round(10 * 2 * 0.1 + 0.15, 2)
    core_hours = found.parse_hours + 2 * found.download_hours + found.score_hours
    assert costs["cost"] == round(core_hours * 0.1 + 0.15, 2)
    assert costs["more_for_storage_a_month"] == round(found.stored_bytes / 1e9 * 0.02, 2)
    assert costs["more_for_egress_once"] == round(found.kept_bytes / 1e9 * 0.1, 2)


def test_what_the_sample_used_is_scaled_where_it_was_recorded(store: Store) -> None:
    known(store)
    used = {
        "parse": Usage(pod_s=100, core_s=400, cpu_s=360),
        "download": Usage(pod_s=12, core_s=24, cpu_s=20, web_bytes=4_000_000, store_writes=50),
        "score": Usage(pod_s=36, core_s=72, gpu_s=36, cpu_s=70, store_reads=9),
    }
    for stage, usage in used.items():
        record = UsageRecord(CRAWL, stage, "0", 2, 0, 0.0, running=False, usage=usage, ran_s=1.0)
        store.write(f"usage/{CRAWL}/{stage}/0.json", record.to_json())
    found = estimate(CRAWL, 2_000, store)
    assert (found.parse_hours, found.score_hours, found.gpu_hours) == (100.0, 19.444, 10.0)
    prices = PricesSettings(core_hour=0, gpu_hour=2.0, nat_gb=0.05, store_writes=1.0, store_reads=0)
    costs = estimated_costs(found, Settings(prices=prices))
    assert costs["cost_score"] == 20.0
    assert costs["cost_requests"] == 50.0  # 50,000 requests
    assert costs["cost_nat_gateway"] == 0.2


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
