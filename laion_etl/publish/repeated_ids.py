"""Refuses to publish samples whose ids another crawl of the dataset has.

A sample id begins with the number of its batch, so ids repeat if two crawls have batches of one number. The
manifest lists the batches of every crawl as ranges, which costs nothing to compare. Version 0.1, which could
give a number twice, did not list them: of crawls that it published the ids are read, but only those row
groups of their files whose lowest and highest id leave it possible.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from laion_etl.core.errors import InputError
from laion_etl.core.ids import MAX_BATCH_PAIRS
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.schemas import batch_of
from laion_etl.crawl import written_numbers
from laion_etl.dataset.coverage import number_ranges
from laion_etl.dataset.manifest import BATCH_RANGES, Manifest, ManifestPart
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS
from laion_etl.io.storage import Store

_ROWS_PER_READ = 1 << 16

Range = tuple[int, int]  # first and last


def check_ids(crawl: str, batches: Iterable[int], manifest: Manifest | None, store: Store) -> None:
    """Raise InputError if another crawl of a dataset has batches of these numbers.

    `manifest`: of the dataset's current version; None if nothing is published.
    """
    own = frozenset(batches)
    for part in manifest.parts if manifest else ():
        if part.crawl == crawl or not own or manifest is None:
            continue
        if repeated := sorted(own & batches_among(own, part, manifest, store)):
            raise InputError(
                f"cannot publish {crawl} into {manifest.release.name}: {len(repeated):,} of its batches have "
                f"the numbers of batches of {part.crawl} ({written_numbers(repeated)[:100]}), so samples "
                "would share ids; publish it into another dataset (LAION_ETL_PUBLISH_NAME), or give its "
                f"batches numbers of their own: `laion-etl db forget --crawl {crawl}`, then load, plan, "
                "download and score it again"
            )


def batches_among(own: frozenset[int], part: ManifestPart, manifest: Manifest, store: Store) -> set[int]:
    """Return those of some batch numbers that a part has."""
    listed = part.batches.get(BATCH_RANGES)
    if listed is None:
        return _batches_of_files(own, part, manifest, store)
    ordered = np.sort(np.fromiter(own, np.int64))
    found: set[int] = set()
    for first, last in _ranges(listed, manifest, store):
        low, high = np.searchsorted(ordered, [first, last + 1])
        found.update(ordered[low:high].tolist())
    return found


def _ranges(listed: object, manifest: Manifest, store: Store) -> list[Range]:
    try:
        return [(int(first), int(last)) for first, last in listed]  # type: ignore[attr-defined]
    except (ValueError, TypeError) as error:
        uri = store.uri(manifest.release.folder)
        raise InputError(
            f"cannot read the manifest in {uri}: its ranges of batches are invalid ({error}); restore it"
        ) from error


def _batches_of_files(own: frozenset[int], part: ManifestPart, manifest: Manifest, store: Store) -> set[int]:
    ranges = [
        (first * MAX_BATCH_PAIRS, (last + 1) * MAX_BATCH_PAIRS - 1) for first, last in number_ranges(own)
    ]
    found: set[int] = set()
    for subset in LANGUAGE_SUBSETS:
        for file in manifest.data_files(subset, part.crawl):
            with store.open(file.name) as raw:
                try:
                    for ids in _ids_within(BoundedParquet(raw), ranges):
                        found.update(own.intersection(np.unique(batch_of(ids)).tolist()))
                except (pa.ArrowException, OSError) as error:
                    raise InputError(
                        f"cannot read {store.uri(file.name)}: {error}; run `laion-etl dataset verify`"
                    ) from error
    return found


def _ids_within(parquet: BoundedParquet, ranges: Sequence[Range]) -> Iterator[np.ndarray]:
    """Yield the ids of the row groups of a published file that may have some within the ranges."""
    groups = [
        number
        for number, known in enumerate(parquet.numbers_of_groups("SAMPLE_ID"))
        if known is None or any(first <= known[1] and known[0] <= last for first, last in ranges)
    ]
    for rows in parquet.iter_batches(_ROWS_PER_READ, ["SAMPLE_ID"], groups) if groups else ():
        yield rows.column("SAMPLE_ID").to_numpy(zero_copy_only=False)
