"""What manifest, card and report say of how a version was made stays true under other settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from laion_etl.dataset.manifest import ManifestPart, current_manifest
from laion_etl.io.storage import LocalStore
from laion_etl.publish.stage import publish_dataset, rebuild_report
from laion_etl.publish.verify import verify_version
from laion_etl.settings import Settings, Stage
from laion_etl.settings.provenance import unit_settings
from tests.publish.world import CRAWL, build_world, changed, write_world


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path)
    write_world(build_world(batches=2, samples=20), store)
    for number in range(2):
        name = f"scored/{CRAWL}/{number:09d}_stats.json"
        stats = store.read_stats(name)
        applied = {"threshold_en": 0.18, "threshold_other": round(0.14 + number / 100, 2)}
        store.write_stats(name, replace(stats, details=dict(stats.details) | applied))
    publish_dataset(CRAWL, changed(Settings(), contact="us@example.org"), store)
    return store


def _today() -> Settings:
    today = changed(Settings(), aesthetic_min=6.5)
    return replace(
        today,
        download=replace(today.download, opt_out=False),
        clip=replace(today.clip, threshold_en=0.11),
        plan=replace(today.plan, batch_size=77),
    )


def _part(store: LocalStore) -> ManifestPart:
    manifest = current_manifest("laion", store)
    assert manifest is not None
    return manifest.parts[0]


def test_thresholds_are_those_that_scoring_applied(store: LocalStore) -> None:
    clip = _part(store).settings["clip"]
    assert (clip["threshold_en"], clip["threshold_other"]) == (0.18, [0.14, 0.15])
    assert _part(store).settings["publish"]["contact"] == "us@example.org"


def test_a_report_under_other_settings_shows_those_of_the_manifest(store: LocalStore) -> None:
    before = _part(store)
    page = store.read(f"dataset/laion/{CRAWL}/report/index.html")
    rebuild_report(CRAWL, _today(), store)
    assert store.read(f"dataset/laion/{CRAWL}/report/index.html") == page
    assert _part(store) == before
    assert verify_version("laion", "", store).problems == []


def test_published_again_the_stages_before_keep_their_settings(store: LocalStore) -> None:
    before = _part(store)
    publish_dataset(CRAWL, _today(), store)
    after = _part(store)
    assert after.version == f"{CRAWL}.2"
    assert after.settings["publish"]["aesthetic_min"] == 6.5
    groups = [
        {name: group for name, group in part.settings.items() if name != "publish"}
        for part in (before, after)
    ]
    assert json.dumps(groups[0], sort_keys=True) == json.dumps(groups[1], sort_keys=True)
    card = store.read(f"dataset/laion/{CRAWL}.2/README.md").decode()
    assert "Owners' opt-outs were honoured" in card


def test_a_crawl_that_was_scored_again_shows_the_settings_of_today(store: LocalStore) -> None:
    name = f"scored/{CRAWL}/000000000_stats.json"
    store.write_stats(name, replace(store.read_stats(name), fingerprint="scored again"))
    publish_dataset(CRAWL, _today(), store)
    assert _part(store).settings["download"]["opt_out"] is False


def _made_with(settings: Settings, stage: Stage, name: str, store: LocalStore) -> None:
    """Let the stats of a unit say that it was made with these settings."""
    stats = store.read_stats(name)
    details = {**stats.details, "settings": unit_settings(settings, stage)}
    store.write_stats(name, replace(stats, details=details))


@pytest.mark.parametrize("batches_per_range", [100, 1])
def test_the_first_publication_shows_the_settings_that_the_stages_ran_with(
    tmp_path: Path, batches_per_range: int
) -> None:
    """Partitions and batches may have been made with different ones, and who publishes has yet others."""
    store, ran = LocalStore(tmp_path), Settings()
    ran = replace(ran, parse=replace(ran.parse, min_alt_chars=7))
    other = replace(ran, download=replace(ran.download, opt_out=False, min_bytes=123))
    write_world(build_world(batches=2, samples=20), store)
    _made_with(ran, Stage.PARSE, f"pairs/{CRAWL}/part-00000.json", store)
    _made_with(ran, Stage.LOAD, f"load/{CRAWL}/part-00000.json", store)
    for number, settings in enumerate((ran, other)):
        _made_with(settings, Stage.DOWNLOAD, f"shards/{CRAWL}/{number:09d}_stats.json", store)
    publish_dataset(CRAWL, changed(_today(), batches_per_range=batches_per_range), store)
    shown = _part(store).settings
    assert shown["parse"]["min_alt_chars"] == 7
    assert shown["download"]["opt_out"] == [False, True]
    assert shown["download"]["min_bytes"] == [123, Settings().download.min_bytes]
    assert shown["plan"]["batch_size"] == 77, "of this stage nothing is recorded"
    card = store.read(f"dataset/laion/{CRAWL}/README.md").decode()
    assert "Texts under 7 characters" in card
    assert "Opt-outs were **not** honoured" in card
    assert "- `download.opt_out`: `false, true`" in card
    page = store.read(f"dataset/laion/{CRAWL}/report/index.html")
    for name in (f"shards/{CRAWL}/{number:09d}_stats.json" for number in range(2)):
        stats = store.read_stats(name)
        store.write_stats(name, replace(stats, details={}))
    rebuild_report(CRAWL, changed(Settings(), batches_per_range=batches_per_range), store)
    assert store.read(f"dataset/laion/{CRAWL}/report/index.html") == page, "the manifest still says it"
    assert verify_version("laion", "", store).problems == []


def test_stats_have_no_credentials_of_addresses() -> None:
    signed = "https://me:pass@b.example/list.txt?v=2&key=a1&sig=abc123&X-Amz-Signature=f00"
    parse = replace(Settings().parse, blocked_domains=(signed, "/home/me/list.txt"))
    found = unit_settings(replace(Settings(), parse=parse), Stage.PARSE)["parse"]["blocked_domains"]
    assert found == ["https://b.example/list.txt?v=2&key=***&sig=***&X-Amz-Signature=***", "list.txt"]
