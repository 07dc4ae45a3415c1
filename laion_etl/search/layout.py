"""Names of index files in the store, and deletion of those no longer needed."""

from concurrent.futures import ThreadPoolExecutor

from laion_etl.dataset.versions import Release, check_folder_name, read_versions
from laion_etl.io.storage import Store

STATS = "_stats.json"
FORMAT = 2  # of graph and rows: 2 stores equal vectors once; a part of another one is built again
PARTS = "_parts"
_READERS = 8  # records are small: reading them is mostly waiting
_ENDINGS = (STATS, ".usearch", ".arrow")


def index_stats(release: Release) -> str:
    """Return the name of a version's index stats, which mark it as indexed and list its parts."""
    return f"index/{release.name}/{release.version}/{STATS}"


def range_stats(release: Release, crawl: str, number: int) -> str:
    """Return the name of the record of an indexed range of batches."""
    return f"index/{release.name}/{release.version}/{crawl}/range-{number:05d}.json"


def part_stem(dataset: str, crawl: str, unit: str) -> str:
    """Return the name of a part's files in the store without their endings.

    Raises SettingsError for a crawl or unit, as read from a file, that would lead out of the folder.
    """
    check_folder_name("crawl", crawl)
    check_folder_name("part", unit)
    return f"index/{dataset}/{PARTS}/{crawl}/{unit}"


def delete_unnamed(dataset: str, store: Store) -> None:
    """Delete indexes of versions that no longer exist, then parts that no index lists."""
    visible = {one.version for one in read_versions(dataset, store).listed}
    records: list[str] = []
    for name in store.list(f"index/{dataset}"):
        _, _, version, *rest = name.split("/")
        if version == PARTS:
            continue
        if version not in visible:
            store.delete(name)
            continue
        if rest == [STATS] or rest[-1].startswith("range-"):
            records.append(name)
    with ThreadPoolExecutor(_READERS) as pool:
        named = {
            _stem(output.name) for stats in pool.map(store.read_stats, records) for output in stats.outputs
        }
    for name in store.list(f"index/{dataset}/{PARTS}"):
        if _stem(name) not in named:
            store.delete(name)


def _stem(name: str) -> str:
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name
