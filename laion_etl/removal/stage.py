"""Removal requests: listed data is deleted from the store, and every dataset gets a version without it.

1. The store is searched; matches are recorded as hashes (`removals/<id>.json`, see removal_requests.py).
2. Shards, scored shards, pairs and batches are rewritten without the matches (see rewrite.py); checkpoints of
   parse, which are copies of pairs, are deleted.
3. Affected crawls are published again from the rewritten shards: a new version of each dataset;
   their parts of the search index are deleted.
4. Versions that still contain matches are reported, and with `purge` deleted, except files that other
   versions list.

A run killed at any moment and repeated has the same result: each step finds what is left to do. A file that
cannot be read stops none of the others: what can be removed is, and the error at the end names the file.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from laion_etl.blocklists.removal_requests import FOUND, Matcher, Request, read_request
from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError, SettingsError
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
_COLUMNS = ["pair_id", "url", "caption", "alt", "md5", "sha256", "pdq"]  # alt: caption of older files
_DATASET_COLUMNS = {"URL": "url", "hash": "hash"}
_VERSIONS = re.compile(r"dataset/([^/]+)/versions\.json\Z")
_MAY_CHANGE = ("name", "contact")

_UNREADABLE = (InputError, MissingFileError, DamagedFileError)  # of one file; the store itself answers
_NAMED = 3  # unreadable files in an error message

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Removal:
    """Result of a request: versions published, and versions (name/version) that hold or held its data."""

    request: Request
    published: tuple[StageStats, ...]
    holding: tuple[str, ...]
    purged: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "id": self.request.id,
            "pairs": len(self.request.pair_ids),
            "removed": dict(self.request.counts),
            "published": [stats.unit for stats in self.published],
            "holding": list(self.holding),
            "purged": list(self.purged),
        }


class UnfinishedRemovalError(InputError):
    """Files that cannot be read may still hold what is to be removed; `removal` is what was done."""

    def __init__(self, removal: Removal, errors: Sequence[str]) -> None:
        more = f" | and {len(errors) - _NAMED:,} more" if len(errors) > _NAMED else ""
        super().__init__(
            f"cannot finish the removal {removal.request.id}: {len(errors):,} failures, all else is removed: "
            f"{' | '.join(errors[:_NAMED])}{more}; mend or delete these files and run the same command again"
        )
        self.removal = removal


class _Failures:
    """What could not be read, each message once."""

    def __init__(self) -> None:
        self.messages: dict[str, None] = {}

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Let the caller go on with the next file when this one cannot be read."""
        try:
            yield
        except _UNREADABLE as error:
            self.messages[str(error)] = None


def remove(
    request: Request,
    settings: Settings,
    store: Store,
    *,
    purge: bool = False,
    on_file: Progress | None = None,
) -> Removal:
    """Carry out a request; `on_file` is called with the progress of searching and rewriting files.

    Raises SettingsError if a dataset was published with other settings than these, UnfinishedRemovalError if
    files cannot be read, after all others are done, and StorageError.
    """
    failures = _Failures()
    datasets = list(_datasets(store))
    request = _search(read_request(request, store), settings, store, on_file, failures)
    work: list[tuple[str, ManifestPart]] = []
    for name in datasets:
        with failures.collected():
            work += [(name, part) for part in _parts_with(request, name, store)]
    for name, part in work:
        _check_settings(name, part, settings)
    store.write(request.name, request.to_json())
    for name in store.list("checkpoints"):
        store.delete(name)
    _rewrite(Matcher([request], settings.download.pdq_distance), store, on_file, failures)
    for dataset in {name for name, _ in work}:
        _delete_index(dataset, request.crawls, store)
    published = []
    for name, part in work:
        with failures.collected():
            published.append(_publish(name, part.crawl, settings, store))
    holding: list[str] = []
    for name in datasets:
        with failures.collected():
            holding += [f"{name}/{version}" for version in _holding(request, name, store)]
    purged: list[str] = []
    for name in datasets if purge else ():
        with failures.collected():
            old = _holding(request, name, store)
            purge_versions(name, frozenset(old), store)
            delete_unnamed(name, store)  # their indexes have captions and embeddings too
            purged += [f"{name}/{version}" for version in old]
    left = tuple(version for version in holding if version not in purged)
    removal = Removal(request, tuple(published), left, tuple(purged))
    if failures.messages:
        raise UnfinishedRemovalError(removal, list(failures.messages))
    return removal


def _datasets(store: Store) -> Iterator[str]:
    for name in store.list("dataset"):
        if match := _VERSIONS.match(name):
            yield match[1]


def _search(
    request: Request, settings: Settings, store: Store, on_file: Progress | None, failures: _Failures
) -> Request:
    """Add all matching pairs to the request; images first, whose pairs are then found everywhere."""
    for folders in (("shards", "scored"), ("pairs", "batches")):
        names = [name for folder in folders for name in store.list(folder) if name.endswith(".parquet")]
        for number, name in enumerate(names, 1):
            with failures.collected():
                table = read_table(name, store, _COLUMNS)
                request = _searched(request, table, name.split("/")[1], settings)
            if on_file is not None:
                on_file(number, len(names))
    for dataset in _datasets(store):
        with failures.collected():
            request = _search_dataset(request, dataset, settings, store)
    return request


def _search_dataset(request: Request, dataset: str, settings: Settings, store: Store) -> Request:
    """Add the crawls with matching published rows, so that a crawl whose shards are gone is not missed."""
    manifest = current_manifest(dataset, store)
    if manifest is None:
        return request
    for part in manifest.parts:
        files = [file for subset in LANGUAGE_SUBSETS for file in manifest.data_files(subset, part.crawl)]
        for rows in (rows for file in files for rows in read_rows([file], store)):
            texts = zip(rows["URL"].to_pylist(), rows["TEXT"].to_pylist(), strict=True)
            ids = pa.array([pair_id(url, text) for url, text in texts], pa.binary(16))
            pairs = pa.table({"pair_id": ids, "url": rows["URL"], "caption": rows["TEXT"]})
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


def _rewrite(matcher: Matcher, store: Store, on_file: Progress | None, failures: _Failures) -> None:
    steps: list[tuple[Callable[[str, Store, Matcher], None], str]] = [
        *((rewrite_scored, stem) for stem in stems("scored", store)),
        *((rewrite_shard, stem) for stem in stems("shards", store)),
        *((blank_rows, f"{stem}.parquet") for stem in stems("batches", store)),
        *((rewrite_rows, f"{stem}.parquet") for stem in stems("pairs", store)),
    ]
    for number, (step, name) in enumerate(steps, 1):
        with failures.collected():
            step(name, store, matcher)
        if on_file is not None:
            on_file(number, len(steps))


def _delete_index(dataset: str, crawls: tuple[str, ...], store: Store) -> None:
    """Delete the crawls' index parts, which hold their texts, and the stats of indexes that use them."""
    for name in store.list(f"index/{dataset}"):
        _, _, folder, rest = name.split("/", 3)
        if folder != _INDEX_PARTS or rest.split("/")[0] in crawls:
            store.delete(name)


def _parts_with(request: Request, dataset: str, store: Store) -> list[ManifestPart]:
    """Return the parts of the current version that were published before the request was known."""
    manifest = current_manifest(dataset, store)
    parts = manifest.parts if manifest else ()
    return [part for part in parts if part.crawl in request.crawls and request.id not in part.removals]


def _holding(request: Request, dataset: str, store: Store) -> list[str]:
    """Return the visible versions whose files or report still contain removed data."""
    found = []
    for version in read_versions(dataset, store).listed:
        parts = read_manifest(dataset, version, store).parts
        if any(part.crawl in request.crawls and request.id not in part.removals for part in parts):
            found.append(version.version)
    return found


def _check_settings(dataset: str, part: ManifestPart, settings: Settings) -> None:
    """Check that a removal changes nothing else: the settings that shaped the dataset must be the same.

    The dataset's name and contact may change; settings that an older manifest does not record are ignored.
    """
    now = shaping_settings(settings)["publish"]
    plain = {name: _plain(value) for name, value in now.items() if name not in _MAY_CHANGE}
    was = part.settings["publish"]
    if others := sorted(name for name, value in plain.items() if name in was and was[name] != value):
        raise SettingsError(
            f"cannot remove from dataset {dataset}: {part.crawl} was published with other settings "
            f"({', '.join(others)}); set them as in manifest.json of version {part.version}, or publish "
            "the crawl with the current ones first"
        )


def _plain(value: object) -> object:
    """Return a value as JSON would give it back."""
    return [_plain(one) for one in value] if isinstance(value, (tuple, list)) else value


def _publish(dataset: str, crawl: str, settings: Settings, store: Store) -> StageStats:
    manifest = current_manifest(dataset, store)
    variant = str(manifest.document["variant"]) if manifest else RESEARCH
    name = dataset if variant == RESEARCH else dataset.removesuffix(f"-{variant}")
    chosen = replace(settings, publish=replace(settings.publish, name=name))
    return publish_dataset(crawl, chosen, store, variant=variant)
