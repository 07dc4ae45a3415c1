"""Finds near duplicates among all ranges of a crawl, and among those of earlier crawls.

The rule is that of image_dedupe.py: from best to worst, an image is redundant if a better one that is not
redundant is near. It is the same for one process and any number of ranges, as it only depends on which images
are near and on their order. But it follows chains of near images through the whole crawl, which does not fit
into memory. The choice: each range writes its hashes by bands (band_files.py). This step reads one slice of
one band after another, which has all images that agree in the band, and connects the near ones among them. No
image outside a group of connected images is near one in it, so each group is decided separately
(near_groups.py). Of many images that are all near, each is compared with one or a few
(blocklists/near_runs.py); a list of all near pairs, which has no bound, was refused.

Two slices are in memory, 400 MB each at 2 million records; larger ones are compared in parts, one at a time
(near_slices.py). Images without a near one, nearly all, are dropped. What a slice connects is kept in the
store (near_checkpoints.py), for a comparison that is killed.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.blocklists.near_hashes import HASH_BYTES
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.storage import Store
from laion_etl.publish.band_files import IMAGE, KNOWN, Bands, BandsFile
from laion_etl.publish.near_checkpoints import Compared, ComparedSlices
from laion_etl.publish.near_groups import Decided, Groups
from laion_etl.publish.near_slices import Slice

STAGE = "publish compare"
# `kept`: see `Decided`. A hash that is not listed has no near one; one listed twice keeps the image named.
SCHEMA = pa.schema(
    [
        pa.field("pdq", pa.binary(HASH_BYTES), nullable=False),
        pa.field("kept", pa.int64(), nullable=False),
    ]
)
_AT_ONCE = 2
_READERS = 16
_ROWS_PER_GROUP = 1 << 18


@dataclass(frozen=True, slots=True)
class HashFiles:
    """The files of a crawl by bands: of its own images, and of those of earlier crawls."""

    bands: Bands
    own: tuple[Output, ...]
    known: tuple[Output, ...]


def write_decided(files: HashFiles, name: str, done: ComparedSlices, store: Store) -> tuple[Output, int]:
    """Compare all images and write what is decided; returns the file, and how many hashes it lists."""
    rows = 0
    with Groups(files.bands.bits) as groups, store.create(name) as file:
        for pairs, known in _compared(files, done, store):
            groups.add(pairs, known)
        with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            for decided in groups.decided():
                rows += len(decided.kept)
                writer.write_table(_table(decided), row_group_size=_ROWS_PER_GROUP)
    return file.output, rows


def stats_of(crawl: str, unit: str, made_from: str, output: Output, rows: int) -> StageStats:
    """Return the record of the step."""
    return StageStats(STAGE, crawl, unit, made_from, rows, rows, {}, (output,))


def _table(decided: Decided) -> pa.Table:
    data = pa.py_buffer(np.ascontiguousarray(decided.hashes))
    hashes = pa.FixedSizeBinaryArray.from_buffers(pa.binary(HASH_BYTES), len(decided.kept), [None, data])
    return pa.table([hashes, pa.array(decided.kept)], schema=SCHEMA)


def _compared(files: HashFiles, done: ComparedSlices, store: Store) -> Iterator[Compared]:
    """Yield what each slice connects, in order, and which of its images are known."""
    with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(_AT_ONCE) as pool:
        own, known = (
            list(readers.map(partial(BandsFile.open, bands=files.bands, dtype=dtype, store=store), outputs))
            for outputs, dtype in ((files.own, IMAGE), (files.known, KNOWN))
        )
        slices = (
            Slice(own, known, files.bands, band, number)
            for band in range(files.bands.count)
            for number in range(files.bands.slices)
        )

        def begin(one: Slice) -> tuple[Slice, Future[Compared] | None]:
            once = partial(done.once, one.band, one.number, partial(one.in_memory, readers))
            return one, None if one.is_large else pool.submit(once)

        begun = [begin(one) for one in islice(slices, _AT_ONCE)]
        while begun:
            one, found = begun.pop(0)
            if found is None:
                yield from done.parts(one.band, one.number, one.in_parts)
            else:
                yield found.result()
            begun += [begin(one) for one in islice(slices, 1)]
