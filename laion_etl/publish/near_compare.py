"""Finds near duplicates among all ranges of a crawl, and among those of earlier crawls.

The rule is that of image_dedupe.py: from best to worst, an image is redundant if a better one that is not
redundant is near. It is the same for one process and any number of ranges, as it only depends on which images
are near and on their order. But it follows chains of near images through the whole crawl, which does not fit
into memory. The choice: each range writes its hashes by bands (band_files.py). This step reads one slice of
one band after another, which has all images that agree in the band, and connects the near ones among them. No
image outside a group of connected images is near one in it, so each group is decided separately
(near_groups.py). Of many images that are all near, each is compared with one or a few
(blocklists/near_runs.py); a list of all near pairs, which has no bound, was refused.

Two slices are in memory, 400 MB each at 2 million records; images without a near one, nearly all, are
dropped. What a slice connects is kept in the store (near_checkpoints.py), for a comparison that is killed.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.blocklists.near_hashes import HASH_BYTES, cuts, to_words
from laion_etl.blocklists.near_kernels import band_values, mark_near_others
from laion_etl.blocklists.near_runs import connected
from laion_etl.core.stage_stats import Output, StageStats
from laion_etl.io.storage import Store
from laion_etl.publish.band_files import IMAGE, KNOWN, Bands, BandsFile, Records
from laion_etl.publish.near_checkpoints import Compared, ComparedSlices
from laion_etl.publish.near_groups import Decided, Groups

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
    places = ((band, number) for band in range(files.bands.count) for number in range(files.bands.slices))
    with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(_AT_ONCE) as pool:
        own, known = (
            list(readers.map(partial(BandsFile.open, bands=files.bands, dtype=dtype, store=store), outputs))
            for outputs, dtype in ((files.own, IMAGE), (files.known, KNOWN))
        )

        def read(found: Sequence[BandsFile], band: int, number: int) -> Records:
            return np.concatenate(list(readers.map(lambda one: one.read(band, number), found)))

        def compared(band: int, number: int) -> Compared:
            before = read(known, band, number) if known else np.empty(0, KNOWN)
            return compare_slice(read(own, band, number), before, files.bands.bits, band)

        def once(band: int, number: int) -> Compared:
            return done.once(band, number, partial(compared, band, number))

        begun: list[Future[Compared]] = [pool.submit(once, *place) for place in islice(places, _AT_ONCE)]
        while begun:
            yield begun.pop(0).result()
            begun += [pool.submit(once, *place) for place in islice(places, 1)]


def compare_slice(own: Records, known: Records, bits: int, band: int) -> Compared:
    """Return pairs of images that connect all near ones, and images near to known ones, by one band.

    An image that stands for others of the same hash is paired with itself, by the first band.
    """
    firsts, widths = cuts(bits)
    first, width = int(firsts[band]), int(widths[band])
    words, known_words = to_words(own["pdq"]), to_words(known["pdq"])
    values, known_values = band_values(words, first, width), band_values(known_words, first, width)
    order, known_order = np.argsort(values, kind="stable"), np.argsort(known_values, kind="stable")
    words, values, own = words[order], values[order], own[order]
    near = np.zeros(len(own), np.bool_)
    mark_near_others(
        words, values, known_words[known_order], known_values[known_order], bits, band, firsts, widths, near
    )
    edges = connected(words, values, bits, band)
    alone = np.flatnonzero(own["several"]) if band == 0 else np.empty(0, np.int64)
    return own[np.concatenate([edges.ravel(), np.repeat(alone, 2)])], own[near]
