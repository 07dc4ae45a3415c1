"""Deletes versions: they are unlisted first, then the files that no other version lists are deleted.

Their names stay in versions.json as purged: a folder that still has files of later versions is not reused.
"""

from laion_etl.core.errors import InputError
from laion_etl.dataset.manifest import STATS, read_manifest
from laion_etl.dataset.versions import Release, Versions, change_versions, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.commit import refresh_card


def purge_versions(dataset: str, names: frozenset[str], store: Store) -> None:
    """Delete versions of a dataset, and what a killed earlier call left of others.

    Raises InputError if one of them is current: readers must always find a current version.
    """

    def purged(versions: Versions) -> Versions:
        if versions.current is not None and versions.current.version in names:
            raise InputError(
                f"cannot purge {versions.current.version}: it is the current version of {dataset}; "
                "publish another first"
            )
        return versions.purge(names)

    versions = change_versions(dataset, store, purged) if names else read_versions(dataset, store)
    refresh_card(dataset, store)
    needed = set()
    for version in versions.listed:
        manifest = read_manifest(dataset, version, store)
        needed |= {file.name for file in manifest.files}
        needed |= {Release(dataset, part.version).file(STATS) for part in manifest.parts}
    for name in versions.purged:
        for file in store.list(Release(dataset, name).folder):
            if file not in needed:
                store.delete(file)
