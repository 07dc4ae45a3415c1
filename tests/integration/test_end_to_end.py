"""The mini crawl through every stage on real parts: HTTP, Postgres, files or S3, decoders, CLIP."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from laion_etl.cli.local_run import LocalRun
from laion_etl.core.errors import InputError
from laion_etl.core.schemas import DATASET_SCHEMA, pair_id
from laion_etl.crawl import Partition, partitions
from laion_etl.database.connection import open_database
from laion_etl.database.embedded import EmbeddedServer
from laion_etl.database.load import load_partition
from laion_etl.dataset.funnel_report import CrawlFunnel, crawl_funnel
from laion_etl.download.stage import download_batch
from laion_etl.download.worker import Worker, open_queue
from laion_etl.io.storage import LocalStore, Store
from laion_etl.io.usage_records import UsageReader
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.parse.stage import parse_partition
from laion_etl.plan.stage import plan_batches
from laion_etl.publish.stage import publish_dataset
from laion_etl.score.stage import score_shards
from laion_etl.settings import ClipSettings, CoreSettings, ParseSettings, PlanSettings, Settings
from scripts.docs.reproduction import MINI_CRAWL
from tests.database.pairs import batch_no, batch_nos
from tests.database.templates import copied
from tests.prompt_web import LIMITS, LONGEST_S, ended_by_server

pytestmark = pytest.mark.slow

QUIET = Console(file=io.StringIO())


def of_mini_crawl(settings: Settings, miniweb: MiniWeb) -> Settings:
    """The settings of a run over the mini crawl. To start a job takes longer than to parse a file."""
    return replace(
        settings,
        core=replace(settings.core, crawl_source=miniweb.url, wat_files_per_partition=2),
        parse=ParseSettings(jobs=1),
        plan=PlanSettings(batch_size=500),
        download=replace(
            settings.download,
            connect_to=miniweb.connect_to,
            decoders=2,
            **dict.fromkeys(LIMITS, LONGEST_S),
        ),
        clip=ClipSettings(model="laion-etl-tiny", pretrained="scenes", preparers=1),
    )


@pytest.fixture
def mini_settings(settings: Settings, miniweb: MiniWeb) -> Settings:
    """With a database of the test's own."""
    return of_mini_crawl(settings, miniweb)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedServer,
    migrated_template: str,
    miniweb: MiniWeb,
    minicrawl: MiniCrawl,
) -> Store:
    """The store of a run over the whole mini crawl. For a run on S3 there is test_flaky_s3.py."""
    folder = tmp_path_factory.mktemp("whole")
    url = copied(postgres, migrated_template, f"whole_{uuid4().hex}")
    settings = Settings(core=CoreSettings(data_dir=str(folder), database_url=url))
    store = LocalStore(folder / "store")
    run_all(minicrawl.crawl, of_mini_crawl(settings, miniweb), store)
    return store


def run_all(crawl: str, settings: Settings, store: Store) -> None:
    LocalRun(crawl, settings, store, QUIET).all_stages(partitions(crawl, settings))


def read_rows(store: Store, prefix: str) -> list[dict[str, Any]]:
    rows = []
    for name in store.list(prefix):
        if name.endswith(".parquet"):
            with store.open(name) as file:
                rows += pq.read_table(file).to_pylist()
    return rows


def data_files(store: Store) -> dict[str, bytes]:
    """Every file except those that differ from run to run: stats of shards, and usage records."""
    return {
        name: store.read(name)
        for name in store.list("")
        if "postgres/" not in name
        and not name.startswith("usage/")
        and not (name.startswith("shards/") and name.endswith("_stats.json"))
    }


def test_the_mini_crawl_becomes_a_dataset(whole: Store, minicrawl: MiniCrawl) -> None:
    funnel = crawl_funnel(whole, minicrawl.crawl)
    assert not funnel.problems
    assert all(row.units > 0 for row in funnel.rows)
    assert funnel.row("parse").input >= 2_000
    assert funnel.row("download").kept >= 1_000

    shard_rows = read_rows(whole, f"shards/{minicrawl.crawl}")
    outcomes = {row["url"]: row["status"] for row in shard_rows}
    expected = {url: ended_by_server(status) for url, status in minicrawl.expected.items()}
    assert {url: (outcomes[url], expected[url]) for url in outcomes if outcomes[url] != expected[url]} == {}
    _check_what_the_docs_say(funnel)
    _check_that_the_machine_is_billed_once(minicrawl.crawl, whole)

    scored = {row["key"]: row for row in read_rows(whole, f"scored/{minicrawl.crawl}")}
    kept = {key for key, row in scored.items() if row["reason"] is None}
    dataset = f"dataset/laion/{minicrawl.crawl}"
    languages = ("laion-en", "laion-multi", "laion-nolang")
    subsets = {name: read_rows(whole, f"{dataset}/{name}") for name in languages}
    published = [row for rows in subsets.values() for row in rows]
    assert {row["key"] for row in published} == kept
    assert len(published) == len(kept) == funnel.row("publish").kept
    assert min(map(len, subsets.values())) > 20
    for row in published:
        assert row["hash"] == int.from_bytes(pair_id(row["URL"], row["TEXT"])[:8], "big", signed=True)
        assert row["similarity"] >= 0.7
    with whole.open(f"{dataset}/laion-en/part-00000.parquet") as file:
        assert pq.read_schema(file).equals(DATASET_SCHEMA)
    manifest = json.loads(whole.read(f"{dataset}/manifest.json"))
    assert manifest
    assert whole.read(f"{dataset}/README.md").startswith(b"---\n")
    assert whole.read(f"{dataset}/report/index.html").startswith(b"<!")


def _check_that_the_machine_is_billed_once(crawl: str, store: Store) -> None:
    """Download and score ran at the same time, in two processes."""
    records = {record.stage: record for record in UsageReader(crawl).records(store)}
    download, score = records["download"], records["score"]
    assert download.usage.core_s < download.ran_s * download.cores
    assert score.usage.core_s == pytest.approx(score.ran_s * score.cores, abs=1)
    assert score.usage.cpu_s > 0


def _check_what_the_docs_say(funnel: CrawlFunnel) -> None:
    """docs/reproduction.md shows these; scores differ a little from machine to machine."""
    parsed, downloaded, scored = (funnel.row(stage) for stage in ("parse", "download", "score"))
    opted_out = sum(count for reason, count in downloaded.dropped.items() if reason.startswith("opted_out"))
    found = {
        "links": parsed.input,
        "alt_too_short": parsed.dropped["alt_too_short"],
        "unique": downloaded.input,
        "images": downloaded.kept,
        "too_few_bytes": downloaded.dropped["too_few_bytes"],
        "too_many_pixels": downloaded.dropped["too_many_pixels"],
        "opted_out": opted_out,
    }
    assert found == {name: MINI_CRAWL[name] for name in found}
    assert scored.kept == pytest.approx(MINI_CRAWL["published"], rel=0.02)


def test_matching_pairs_are_kept_and_others_dropped(whole: Store, minicrawl: MiniCrawl) -> None:
    rows = read_rows(whole, f"scored/{minicrawl.crawl}")
    similarities = np.array([row["similarity"] for row in rows])
    assert 0.5 < np.mean(similarities > 0.7) < 0.8  # two thirds of the images have their own caption
    unrelated = [
        row for row in rows if "terms of delivery" in row["caption"] or "newsletter" in row["caption"]
    ]
    assert len(unrelated) > 3
    assert all(row["reason"] == "low_similarity" for row in unrelated)
    suspected = [row for row in rows if row["reason"] == "suspected_underage"]
    assert suspected
    assert all(row["nsfw_tag"] in ("NSFW", "UNSURE") for row in suspected)


def _stages(settings: Settings, store: Store, found: list[Partition]) -> dict[str, Callable[[], object]]:
    crawl = found[0].crawl

    def with_database(step: Callable[[Any], object]) -> Callable[[], object]:
        def run() -> object:
            with open_database(settings) as database:
                return step(database)

        return run

    return {
        "pairs": lambda: [
            parse_partition(crawl, p.number, p.indexed_wat_files, settings, store) for p in found
        ],
        "load": with_database(lambda c: [load_partition(crawl, p.number, settings, store, c) for p in found]),
        "batches": with_database(lambda c: plan_batches(crawl, settings, store, c)),
        "shards": lambda: download_batch(crawl, batch_no(0, crawl), settings, store),
        "scored": lambda: score_shards(crawl, batch_nos(1, crawl), settings, store),
        "dataset": lambda: publish_dataset(crawl, settings, store),
    }


def test_every_stage_done_twice_gives_the_same_bytes(
    store: Store, mini_settings: Settings, minicrawl: MiniCrawl
) -> None:
    mini_settings = replace(mini_settings, parse=ParseSettings(jobs=2))
    stages = _stages(mini_settings, store, partitions(minicrawl.crawl, mini_settings, slice(0, 1)))
    for folder, stage in stages.items():
        first_stats = stage()
        first = data_files(store)
        assert any(name.startswith(f"{folder}/") for name in first), folder
        assert stage() == first_stats, folder  # finished: nothing to do
        for name in [name for name in store.list(f"{folder}/") if name.endswith(".json")]:
            store.delete(name)
        again = stage()  # its stats are gone: done again
        if folder == "shards":  # fetch statistics differ from run to run
            first_stats, again = replace(first_stats, details={}), replace(again, details={})
        assert again == first_stats, folder
        assert data_files(store) == first, folder


def test_partitions_loaded_in_any_order_give_the_same_batches(
    tmp_path: Path, whole: Store, mini_settings: Settings, minicrawl: MiniCrawl, postgres: EmbeddedServer
) -> None:
    for folder in ("forward", "backward"):
        for name in whole.list("pairs"):
            LocalStore(tmp_path / folder).write(name, whole.read(name))
    batches = []
    for name, order in (("forward", (0, 1, 2)), ("backward", (2, 1, 0))):
        store = LocalStore(tmp_path / name)
        url = postgres.url(f"order_{name}_{tmp_path.name[-20:].lower()}")
        settings = replace(mini_settings, core=replace(mini_settings.core, database_url=url))
        with open_database(settings) as database:
            for number in order:
                load_partition(minicrawl.crawl, number, settings, store, database)
            planned = plan_batches(minicrawl.crawl, settings, store, database)
        files = {name: data for name, data in data_files(store).items() if name.startswith("batches/")}
        batches.append((planned.outputs, files))
    assert batches[0] == batches[1]
    assert sum(name.endswith(".parquet") for name in batches[0][1]) == 3


def test_a_parked_batch_is_named_and_can_be_done_by_hand(
    store: Store, mini_settings: Settings, minicrawl: MiniCrawl
) -> None:
    stages = _stages(mini_settings, store, partitions(minicrawl.crawl, mini_settings, slice(0, 1)))
    for folder in ("pairs", "load", "batches"):
        stages[folder]()
    batch = batch_no(0, minicrawl.crawl)
    batch_file = f"batches/{minicrawl.crawl}/{batch}.parquet"
    data = store.read(batch_file)
    store.delete(batch_file)
    with open_database(mini_settings) as database:
        worker = Worker(
            minicrawl.crawl, mini_settings, store, open_queue(minicrawl.crawl, mini_settings, database)
        )
        with pytest.raises(
            InputError,
            match=rf"cannot download 1 batch\(es\) of .*, first {batch}: cannot read .*`laion-etl db requeue",
        ):
            worker.run()
        store.write(batch_file, data)
        assert worker.run_one(batch).kept > 100
        assert worker.run() == []
        assert worker.queue.counts().downloaded == 1


@pytest.mark.usefixtures("forked_scoring")
def test_real_pages_end_as_counted_failures(shared_data: Path, store: Store, settings: Settings) -> None:
    """Their images are unreachable here: every link fails quickly, and an empty dataset is published."""
    wat = str(shared_data / "wat" / "real-pages.warc.wat.gz")
    LocalRun("real-pages", settings, store, QUIET).all_stages([Partition("real-pages", 0, 0, (wat,))])
    funnel = crawl_funnel(store, "real-pages")
    assert not funnel.problems
    download = funnel.row("download")
    assert (download.input, download.kept) == (29, 0)
    assert set(download.dropped) <= {"dns_failed", "connect_failed", "connect_timeout", "http_error"}
