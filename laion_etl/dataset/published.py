"""The published datasets: which crawls the current version of each one contains."""

import hashlib
from dataclasses import dataclass, field

from laion_etl.core.errors import MissingFileError
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.manifest import STATS, current_manifest
from laion_etl.dataset.versions import Release, versions_name
from laion_etl.io.storage import Store


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of a crawl in a dataset, and the version whose folder has them."""

    crawl: str
    dataset: str
    version: str
    rows: int


@dataclass(slots=True)
class PublishedDatasets:
    """Cache of what the manifests say of crawls, not of manifests, which may be long; a manifest is read
    again when its dataset has another version. Threads may share it: at worst a manifest is read twice."""

    _known: dict[str, tuple[str, tuple[_Part, ...]]] = field(default_factory=dict)

    def crawls(self, store: Store) -> dict[str, str]:
        """Return the published crawls, each with a dataset that has it. Raises StorageError or InputError."""
        return {part.crawl: part.dataset for part in self._parts(store)}

    def stats(self, crawl: str, store: Store) -> StageStats | None:
        """Return a crawl's publish stats from the dataset with the most rows of it (research-safe has
        fewer)."""
        found = [part for part in self._parts(store) if part.crawl == crawl]
        if not found:
            return None
        most = max(found, key=lambda part: part.rows)
        return store.read_stats(Release(most.dataset, most.version).file(STATS))

    def _parts(self, store: Store) -> list[_Part]:
        return [part for dataset in store.folders("dataset") for part in self._parts_of(dataset, store)]

    def _parts_of(self, dataset: str, store: Store) -> tuple[_Part, ...]:
        try:
            versions = hashlib.sha256(store.read(versions_name(dataset))).hexdigest()
        except MissingFileError:
            return ()
        known, parts = self._known.get(dataset, ("", ()))
        if known != versions and (manifest := current_manifest(dataset, store)):
            parts = tuple(_Part(part.crawl, dataset, part.version, part.rows) for part in manifest.parts)
            self._known[dataset] = (versions, parts)
        return parts
