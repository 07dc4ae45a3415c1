"""Finds the pairs of samples that a removal names by their `key` or SAMPLE_ID."""

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.ids import MAX_BATCH_PAIRS
from laion_etl.core.schemas import batch_file_name, batch_of, scored_stem, shard_stem
from laion_etl.dataset.locator.units import located_crawls, published_datasets
from laion_etl.dataset.manifest import Manifest, current_manifest
from laion_etl.dataset.rewrite import read_table
from laion_etl.dataset.row_streams import read_rows
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS, published_pair_ids
from laion_etl.io.storage import Store
from laion_etl.publish.repeated_ids import batches_among


def pairs_of_samples(samples: Collection[int], store: Store) -> dict[int, str]:
    """Return the hexadecimal ids of the pairs of samples, as far as the store knows them.

    A batch keeps the ids of its pairs when its rows are removed, so a repeated call finds the same. Raises
    InputError for a sample id that two crawls have, as those of version 0.1 could.
    """
    by_batch: dict[int, set[int]] = {}
    for sample in samples:
        by_batch.setdefault(int(batch_of(sample)), set()).add(sample)
    found: dict[int, str] = {}
    for batch, wanted in sorted(by_batch.items()):
        for crawl in located_crawls(store):
            for sample, pair in _pairs_of_batch(crawl, batch, wanted, store).items():
                if found.setdefault(sample, pair) != pair:
                    raise InputError(
                        f"cannot find the sample {sample}: several crawls have a batch {batch}; name it by "
                        "its URL, or by the id of its pair"
                    )
    left = {sample for sample in samples if sample not in found}
    return found | (_published_pairs(left, store) if left else {})


def _pairs_of_batch(crawl: str, batch: int, wanted: Collection[int], store: Store) -> dict[int, str]:
    try:
        table = read_table(batch_file_name(crawl, batch), store, ["pair_id"])
        ids = table["pair_id"].to_pylist()  # row i has index i
        places = {sample: sample % MAX_BATCH_PAIRS for sample in wanted}
        return {sample: ids[place].hex() for sample, place in places.items() if place < len(ids)}
    except MissingFileError:
        pass
    for stem in (shard_stem(crawl, batch), scored_stem(crawl, batch)):
        try:
            table = read_table(f"{stem}.parquet", store, ["key", "pair_id"])
        except MissingFileError:
            continue
        rows = zip(table["key"].to_pylist(), table["pair_id"].to_pylist(), strict=True)
        return {int(key): pair.hex() for key, pair in rows if int(key) in wanted}
    return {}


def _published_pairs(wanted: Collection[int], store: Store) -> dict[int, str]:
    """Look samples up in the published rows of their crawls: everything before them may be deleted."""
    found: dict[int, str] = {}
    for dataset in published_datasets(store):
        manifest = current_manifest(dataset, store)
        if manifest is None:
            continue
        for crawl in _crawls_with(wanted, manifest, store):
            for subset in LANGUAGE_SUBSETS:
                for rows in read_rows(manifest.data_files(subset, crawl), store):
                    named = rows.filter(pc.is_in(rows["SAMPLE_ID"], pa.array(wanted, pa.int64())))
                    found |= zip(named["SAMPLE_ID"].to_pylist(), published_pair_ids(named), strict=True)
    return found


def _crawls_with(wanted: Collection[int], manifest: Manifest, store: Store) -> Iterator[str]:
    batches = frozenset(int(batch_of(sample)) for sample in wanted)
    for part in manifest.parts:
        if batches_among(batches, part, manifest, store):
            yield part.crawl
