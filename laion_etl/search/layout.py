"""Where indexes lie in the store, and which of their files nobody needs any more."""

from laion_etl.dataset.versions import Release, read_versions
from laion_etl.io.storage import Store

STATS = "_stats.json"
_PARTS = "_parts"
_ENDINGS = (STATS, ".usearch", ".arrow")


def index_stats(release: Release) -> str:
    """Name in the store of what says that a version is indexed, and with which parts."""
    return f"index/{release.name}/{release.version}/{STATS}"


def part_stem(dataset: str, crawl: str, unit: str) -> str:
    """Name of a part's files in the store without their endings."""
    return f"index/{dataset}/{_PARTS}/{crawl}/{unit}"


def delete_unnamed(dataset: str, store: Store) -> None:
    """Deletes indexes of versions that are gone, then parts that no index names."""
    visible = {one.version for one in read_versions(dataset, store).listed}
    named: set[str] = set()
    for name in store.list(f"index/{dataset}"):
        _, _, version, *rest = name.split("/")
        if version == _PARTS or rest != [STATS]:
            continue
        if version not in visible:
            store.delete(name)
            continue
        named |= {_stem(output.name) for output in store.read_stats(name).outputs}
    for name in store.list(f"index/{dataset}/{_PARTS}"):
        if _stem(name) not in named:
            store.delete(name)


def _stem(name: str) -> str:
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name
