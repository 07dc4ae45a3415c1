"""Removal requests: what a list names leaves the store, and every dataset gets a version without it.

1. The store is searched; what was found is written down as hashes (`removals/<id>.json`, see removals.py).
2. Shards, scored shards, pairs and batches are rewritten without it (see rewrite.py).
3. Crawls that had some of it are published again, from the rewritten shards: a new version of each dataset;
   their parts of the search index are deleted.
4. Versions that still have it are named, and with `purge` deleted, but for files that other versions list.

Killed at any moment and run again, it comes to the same end: each step finds what is left to do.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from laion_etl.blocklists.removal_requests import FOUND, Matcher, Request, read_request
from laion_etl.core.errors import SettingsError
from laion_etl.core.schemas import pair_id
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.manifest import ManifestPart, current_manifest, read_manifest
from laion_etl.dataset.row_streams import read_rows
from laion_etl.dataset.shaping_settings import shaping_settings
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS
from laion_etl.dataset.variants import RESEARCH
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.purge import purge_versions
from laion_etl.publish.stage import publish_dataset
from laion_etl.removal.rewrite import (
    blank_rows,
    read_table,
    rewrite_rows,
    rewrite_scored,
    rewrite_shard,
    stems,
)
from laion_etl.search.layout import delete_unnamed
from laion_etl.settings import Settings

_INDEX_PARTS = "_parts"  # laion_etl/search/index_part.py
_COLUMNS = ["pair_id", "url", "md5", "sha256", "pdq"]
_DATASET_COLUMNS = {"URL": "url", "hash": "hash"}
_VERSIONS = re.compile(r"dataset/([^/]+)/versions\.json\Z")
_MAY_CHANGE = ("name", "contact")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Removal:
    """What came of a request: versions made, versions (name/version) that still have some of it or had."""

    request: Request
    published: tuple[StageStats, ...]
    holding: tuple[str, ...]
    purged: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "id": self.request.id,
            "pairs": len(self.request.pair_ids),
            "removed": dict(self.request.counts),
            "published": [stats.unit for stats in self.published],
            "holding": list(self.holding),
            "purged": list(self.purged),
        }


def remove(
    request: Request,
    settings: Settings,
    store: Store,
    *,
    purge: bool = False,
    on_file: Progress | None = None,
) -> Removal:
    """Carries a request out. `on_file` hears of files searched and rewritten.

    Raises SettingsError when a dataset was published with other settings than these, InputError for a file
    that is damaged, StorageError.
    """
    datasets = list(_datasets(store))
    request = _search(read_request(request, store), settings, store, on_file)
    work = [(name, part) for name in datasets for part in _parts_with(request, name, store)]
    for name, part in work:
        _check_settings(name, part, settings)
    store.write(request.name, request.to_json())
    _rewrite(Matcher([request], settings.download.pdq_distance), store, on_file)
    for dataset in {name for name, _ in work}:
        _delete_index(dataset, request.crawls, store)
    published = tuple(_publish(name, part.crawl, settings, store) for name, part in work)
    holding = tuple(f"{name}/{version}" for name in datasets for version in _holding(request, name, store))
    purged = holding if purge else ()
    for name in datasets if purge else ():
        purge_versions(name, frozenset(_holding(request, name, store)), store)
        delete_unnamed(name, store)  # their indexes have captions and embeddings too
    return Removal(request, published, () if purge else holding, purged)


def _datasets(store: Store) -> Iterator[str]:
    for name in store.list("dataset"):
        if match := _VERSIONS.match(name):
            yield match[1]


def _search(request: Request, settings: Settings, store: Store, on_file: Progress | None) -> Request:
    """The request with all pairs that are found; images first, whose pairs are then found everywhere."""
    for folders in (("shards", "scored"), ("pairs", "batches")):
        names = [name for folder in folders for name in store.list(folder) if name.endswith(".parquet")]
        for number, name in enumerate(names, 1):
            request = _searched(request, read_table(name, store, _COLUMNS), name.split("/")[1], settings)
            if on_file is not None:
                on_file(number, len(names))
    for dataset in _datasets(store):
        request = _search_dataset(request, dataset, settings, store)
    return request


def _search_dataset(request: Request, dataset: str, settings: Settings, store: Store) -> Request:
    """The crawls with published rows that are named, so that none is passed over whose shards are gone."""
    manifest = current_manifest(dataset, store)
    if manifest is None:
        return request
    for part in manifest.parts:
        files = [file for subset in LANGUAGE_SUBSETS for file in manifest.data_files(subset, part.crawl)]
        for rows in (rows for file in files for rows in read_rows([file], store)):
            texts = zip(rows["URL"].to_pylist(), rows["TEXT"].to_pylist(), strict=True)
            ids = pa.array([pair_id(url, text) for url, text in texts], pa.binary(16))
            pairs = pa.table({"pair_id": ids, "url": rows["URL"]})
            request = replace(request, crawls=_searched(request, pairs, part.crawl, settings).crawls)
    return request


def _searched(request: Request, table: pa.Table, crawl: str, settings: Settings) -> Request:
    rules = Matcher([request], settings.download.pdq_distance).match_rules(table)
    found: dict[str, str] = {}
    for pair, rule in zip(table["pair_id"].to_pylist(), rules.tolist(), strict=True):
        if rule is not None:
            found.setdefault(pair.hex(), rule)
    if not found:
        return request
    new = Counter(rule for pair, rule in found.items() if pair not in request.pair_ids and rule != FOUND)
    counts = Counter(request.counts) + new
    crawls = tuple(sorted({*request.crawls, crawl}))
    return replace(request, pair_ids=request.pair_ids | found.keys(), counts=counts, crawls=crawls)


def _rewrite(matcher: Matcher, store: Store, on_file: Progress | None) -> None:
    steps: list[tuple[Callable[[str, Store, Matcher], None], str]] = [
        *((rewrite_scored, stem) for stem in stems("scored", store)),
        *((rewrite_shard, stem) for stem in stems("shards", store)),
        *((blank_rows, f"{stem}.parquet") for stem in stems("batches", store)),
        *((rewrite_rows, f"{stem}.parquet") for stem in stems("pairs", store)),
    ]
    for number, (step, name) in enumerate(steps, 1):
        step(name, store, matcher)
        if on_file is not None:
            on_file(number, len(steps))


def _delete_index(dataset: str, crawls: tuple[str, ...], store: Store) -> None:
    """What `laion-etl index` keeps of the crawls, which has their texts, and what says that it is whole."""
    for name in store.list(f"index/{dataset}"):
        _, _, folder, rest = name.split("/", 3)
        if folder != _INDEX_PARTS or rest.split("/")[0] in crawls:
            store.delete(name)


def _parts_with(request: Request, dataset: str, store: Store) -> list[ManifestPart]:
    """The parts of the current version that were published before the request was known."""
    manifest = current_manifest(dataset, store)
    parts = manifest.parts if manifest else ()
    return [part for part in parts if part.crawl in request.crawls and request.id not in part.removals]


def _holding(request: Request, dataset: str, store: Store) -> list[str]:
    """Visible versions that list files, or have a report, with what was removed."""
    found = []
    for version in read_versions(dataset, store).listed:
        parts = read_manifest(dataset, version, store).parts
        if any(part.crawl in request.crawls and request.id not in part.removals for part in parts):
            found.append(version.version)
    return found


def _check_settings(dataset: str, part: ManifestPart, settings: Settings) -> None:
    """A removal changes nothing else: what shaped the dataset has to be as it was.

    But for whom people ask, which may change; and what a manifest of an earlier version does not say.
    """
    now = shaping_settings(settings)["publish"]
    plain = {name: _plain(value) for name, value in now.items() if name not in _MAY_CHANGE}
    was = part.settings["publish"]
    if others := sorted(name for name, value in plain.items() if name in was and was[name] != value):
        raise SettingsError(
            f"dataset {dataset} has {part.crawl} by other settings ({', '.join(others)}); set them as "
            f"manifest.json of version {part.version} says, or publish it with yours first"
        )


def _plain(value: object) -> object:
    """As JSON gives it back."""
    return [_plain(one) for one in value] if isinstance(value, (tuple, list)) else value


def _publish(dataset: str, crawl: str, settings: Settings, store: Store) -> StageStats:
    manifest = current_manifest(dataset, store)
    variant = str(manifest.document["variant"]) if manifest else RESEARCH
    name = dataset if variant == RESEARCH else dataset.removesuffix(f"-{variant}")
    chosen = replace(settings, publish=replace(settings.publish, name=name))
    return publish_dataset(crawl, chosen, store, variant=variant)
