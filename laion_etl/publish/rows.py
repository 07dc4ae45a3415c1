"""The loop over the rows of scored batches: each is read once, for all datasets that are published from it.

A dataset gets its rows counted (statistics, contact sheet, drop reasons) and, unless only a report is wanted,
written to the files of its subsets.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from laion_etl.blocklists.removal_requests import Matcher
from laion_etl.core.head_columns import HeadColumn
from laion_etl.dataset.joined_samples import Joined
from laion_etl.dataset.scored import ScoredCrawl, read_batches
from laion_etl.dataset.subsets import DataFile, SubsetWriter, published_rows, subsets
from laion_etl.dataset.versions import Release
from laion_etl.io.storage import Guard, Store
from laion_etl.publish import image_hashes
from laion_etl.publish.exclusions import Exclusions, without_removed
from laion_etl.publish.image_hashes import ImageHashesWriter
from laion_etl.publish.join import SampleFiles, join_batch
from laion_etl.publish.scored_samples import SamplesAhead
from laion_etl.report.contact_sheets import Sampler
from laion_etl.report.statistics import Statistics
from laion_etl.settings import PublishSettings


class DataFiles:
    """The data files of a version that are being written; `written` has them all when they are closed."""

    def __init__(
        self,
        subset_files: Sequence[SubsetWriter],
        images: ImageHashesWriter,
        samples: SampleFiles | None = None,
    ) -> None:
        self._subset_files = subset_files
        self._images = images
        self.samples = samples
        self.written: tuple[DataFile, ...] = ()

    def add(self, rows: pa.RecordBatch, table: pa.Table) -> None:
        """Add scored rows, and the table of those that are published."""
        self._images.add(rows)
        for files in self._subset_files:
            files.add(table)
        if self.samples is not None:
            self.samples.add(table)

    @property
    def joined(self) -> Joined | None:
        """Counts of the joined samples; None if they are not wanted."""
        return self.samples.joined if self.samples is not None else None


@contextmanager
def new_files(
    release: Release,
    crawl: str,
    settings: PublishSettings,
    store: Store,
    range_number: int | None = None,
    guard: Guard | None = None,
) -> Iterator[DataFiles]:
    """Open the data files of a version, or of one of its ranges; they appear when the block ends.

    `guard`: see `Store.create`.
    """
    stem = "part" if range_number is None else f"part-{range_number:05d}"
    with ExitStack() as stack:
        name = release.file(image_hashes.file_name(range_number))
        file = stack.enter_context(store.create(name, guard))
        images = stack.enter_context(closing(ImageHashesWriter(file)))
        writers = [
            stack.enter_context(
                SubsetWriter(subset, release.folder, crawl, settings.rows_per_file, store, stem, guard)
            )
            for subset in subsets(settings)
        ]
        samples = None
        if settings.reshard:
            samples = stack.enter_context(
                SampleFiles(release.folder, crawl, settings.reshard, store, range_number, guard)
            )
        files = DataFiles(writers, images, samples)
        yield files
    output = file.output
    listed = DataFile(output.name, "", images.rows, output.bytes, output.sha256, crawl)
    files.written = (listed, *(one for writer in writers for one in writer.files))
    if samples is not None:
        files.written += tuple(samples.files)


class Rows(Protocol):
    """What gets the rows of the batches."""

    def add(self, batch: int, found: pa.RecordBatch, removed: int) -> None:
        """Add rows of a scored batch; `removed` kept ones were taken out by removal requests."""


@dataclass(frozen=True, slots=True)
class DatasetRows:
    """What one dataset makes of the rows; `files` is None if they are only counted."""

    crawl: str
    columns: Sequence[HeadColumn]
    exclusions: Exclusions
    statistics: Statistics
    sampler: Sampler
    files: DataFiles | None = None

    def add(self, batch: int, found: pa.RecordBatch, removed: int) -> None:
        """Add rows of a scored batch."""
        rows = self.exclusions.applied(found, removed)
        table = published_rows(rows, self.crawl, self.columns)
        self.statistics.add(rows, table)
        self.sampler.add(batch, rows)
        if self.files is not None:
            self.files.add(rows, table)


def read_rows(
    scored: ScoredCrawl,
    requests: Matcher,
    datasets: Sequence[Rows],
    store: Store,
    files: Sequence[DataFiles | None] = (),
) -> None:
    """Read the rows of all batches once, in order, and pass them to the datasets.

    `files`: those of the datasets, into which samples may have to be joined after each batch.
    """
    joining = [one.samples for one in files if one is not None and one.samples is not None]
    with ExitStack() as stack:
        shards = stack.enter_context(SamplesAhead(scored, store)) if joining else None
        for batch, rows in read_batches(scored, store):
            for found in rows:
                left, removed = without_removed(found, requests)
                for dataset in datasets:
                    dataset.add(batch.number, left, removed)
            if shards is not None:
                join_batch(batch, joining, shards)
