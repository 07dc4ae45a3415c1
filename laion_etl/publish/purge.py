"""Deleting versions: they leave the list of visible ones first, then go the files that no other version has.

Their names stay in the list as purged: a folder that still has files of later versions is never written to.
"""

from laion_etl.core.errors import InputError
from laion_etl.dataset.manifest import STATS, read_manifest
from laion_etl.dataset.versions import Release, Versions, change_versions, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.commit import refresh_card


def purge_versions(dataset: str, names: frozenset[str], store: Store) -> None:
    """Deletes versions of a dataset, and what an earlier call that was killed left of others.

    Raises InputError when one of them is current: readers have to have something to go to.
    """

    def purged(versions: Versions) -> Versions:
        if versions.current is not None and versions.current.version in names:
            raise InputError(
                f"{versions.current.version} is the current version of {dataset}; publish another first"
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
