"""The published datasets: which crawls the current version of each one contains."""

from dataclasses import dataclass, field

from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.manifest import STATS, Manifest, current_manifest
from laion_etl.dataset.versions import Release, versions_name
from laion_etl.io.storage import Store


@dataclass(slots=True)
class PublishedDatasets:
    """Cache of manifests, which may be long; reread when a dataset has another version. Threads may share it:
    at worst a manifest is read twice."""

    _known: dict[str, tuple[bytes, Manifest]] = field(default_factory=dict)

    def crawls(self, store: Store) -> dict[str, str]:
        """Return the published crawls, each with a dataset that has it. Raises StorageError or InputError."""
        return {
            part.crawl: manifest.release.name
            for manifest in self._manifests(store)
            for part in manifest.parts
        }

    def stats(self, crawl: str, store: Store) -> list[StageStats]:
        """Return a crawl's publish stats from the dataset with the most rows of it; empty if unpublished."""
        found = [
            store.read_stats(Release(manifest.release.name, part.version).file(STATS))
            for manifest in self._manifests(store)
            if (part := manifest.part(crawl))
        ]
        return sorted(found, key=lambda stats: stats.kept)[-1:]

    def _manifests(self, store: Store) -> list[Manifest]:
        found = (self._manifest(dataset, store) for dataset in store.folders("dataset"))
        return [manifest for manifest in found if manifest]

    def _manifest(self, dataset: str, store: Store) -> Manifest | None:
        if not store.exists(name := versions_name(dataset)):
            return None
        versions = store.read(name)
        known, manifest = self._known.get(dataset, (b"", None))
        if known != versions and (manifest := current_manifest(dataset, store)):
            self._known[dataset] = (versions, manifest)
        return manifest
