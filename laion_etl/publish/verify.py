"""Checks a version against its manifest: every file, every byte, every count, every row's place.

Each file is read once, a few thousand rows at a time, in constant memory. verify_ranges.py divides the work.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import InputError, ServiceError, SettingsError, StorageError
from laion_etl.core.head_columns import has_columns
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import DATASET_FILES, batch_of
from laion_etl.dataset.joined_samples import is_joined
from laion_etl.dataset.manifest import NAME, STATS, Manifest, ManifestPart, read_manifest
from laion_etl.dataset.row_streams import ROWS_PER_READ, ascending, merge_by_id, sample_ids
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS, DataFile, Subset, subsets
from laion_etl.dataset.versions import dataset_folder, read_versions
from laion_etl.io.storage import Store
from laion_etl.publish.verify_rows import wrong_rows
from laion_etl.publish.verify_samples import SamplesCheck
from laion_etl.publish.verify_texts import check_root, check_texts
from laion_etl.settings import PublishSettings

_BYTES_PER_READ = 1 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """A mismatch; `file` is its name in the store."""

    file: str
    what: str


@dataclass(slots=True)
class VerifyReport:
    """What was checked, and the problems found."""

    dataset: str
    version: str
    files: int = 0
    rows: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def verify_version(
    dataset: str, version: str, store: Store, on_bytes: Progress | None = None
) -> VerifyReport:
    """Check a visible version, '' for the current one. Raises InputError if there is no such version,
    ServiceError if the store cannot be read, which says nothing about the dataset.

    `on_bytes` is called with the bytes read so far and in all.
    """
    listed = read_versions(dataset, store).find(version)
    report = VerifyReport(dataset, listed.version)
    with problems_of_the_manifest(report):
        manifest = read_manifest(dataset, listed, store)
        check = Check(manifest, report, store, on_bytes, manifest.files)
        check.run()
        check.check_counts()
    return report


@contextmanager
def problems_of_the_manifest(report: VerifyReport) -> Iterator[None]:
    """Report an InputError or StorageError of the block as a problem of the manifest."""
    try:
        yield
    except ServiceError:
        raise
    except (InputError, StorageError) as error:
        name = f"{dataset_folder(report.dataset)}/{report.version}/{NAME}"
        report.problems.append(Problem(name, str(error)))


@dataclass(slots=True)
class Check:
    """The check of some files of a version; `first`: and of what concerns all of them."""

    manifest: Manifest
    report: VerifyReport
    store: Store
    on_bytes: Progress | None
    files: Sequence[DataFile]
    first: bool = True
    batches: set[int] = field(default_factory=set)
    row_counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (crawl, subset)
    fitting: Counter[tuple[str, str]] = field(default_factory=Counter)  # rows of language subsets that fit

    def run(self) -> None:
        """Check the files and their rows; `check_counts` may follow once all files are checked."""
        if self.first:
            self._find_extra_files()
        samples = SamplesCheck({file.name for file in self.manifest.files}, self._problem)
        for file in self.files:
            if not file.subset:
                self._check_plain(file, samples)
        streams = []
        known: set[tuple[str, str]] = set()
        for part in self.manifest.parts:
            try:
                chosen = self._get_subsets(part)
            except InputError as error:
                self._problem(self.manifest.release.file(NAME), str(error))
                known.update(
                    (file.crawl, file.subset) for file in self.manifest.files if file.crawl == part.crawl
                )
                continue
            for subset in chosen:
                known.add((part.crawl, subset.name))
                stream = self._rows(part, subset)
                if subset.name in LANGUAGE_SUBSETS:
                    streams.append(self._counted(part, stream))
                else:
                    for _ in stream:
                        pass
        self._find_repeated(streams)
        for file in self.files:
            if file.subset and (file.crawl, file.subset) not in known:
                self._problem(file.name, "is of a subset or crawl that the manifest does not describe")
        if self.first:
            check_root(self.manifest, self.store, self._problem)
            check_texts(self.manifest, self.store, self._problem)

    def _get_subsets(self, part: ManifestPart) -> tuple[Subset, ...]:
        try:
            rules = part.settings["publish"]
            own = tuple((str(name), str(sql)) for name, sql in rules["subsets"])
            return subsets(
                PublishSettings(
                    high_resolution_px=int(rules["high_resolution_px"]),
                    aesthetic_min=float(rules["aesthetic_min"]),
                    subsets=own,
                )
            )
        except (KeyError, TypeError, ValueError, SettingsError) as error:
            raise InputError(
                f"cannot check {part.crawl}: its settings in the manifest are invalid ({error}); "
                "restore the manifest"
            ) from error

    def _find_extra_files(self) -> None:
        listed, release = {file.name for file in self.manifest.files}, self.manifest.release
        own = {release.file(name) for name in (NAME, STATS)}
        data = [one.name for one in self.manifest.files if one.subset or is_joined(one)]
        folders = {str(PurePosixPath(name).parent) for name in data}
        found = {name for folder in sorted({release.folder, *folders}) for name in self.store.list(folder)}
        for name in sorted(found - listed - own):
            self._problem(name, "is not in the manifest")

    def _check_plain(self, file: DataFile, samples: SamplesCheck) -> None:
        """Check a file of no subset: its bytes, the number of rows if it is parquet, joined samples."""
        with suppress(_Unreadable), self._opened(file) as raw:
            if file.rows is not None:
                self._parquet(file, raw)
            samples.check(file, raw)

    def _rows(self, part: ManifestPart, subset: Subset) -> Iterator[pa.Table]:
        """Check the rows of a subset and yield those in order."""
        last = -1
        own = (file for file in self.files if (file.subset, file.crawl) == (subset.name, part.crawl))
        for file in own:
            with suppress(_Unreadable), self._opened(file) as raw:
                parquet = self._parquet(file, raw)
                if not self._has_its_columns(parquet.schema_arrow, part):
                    self._problem(file.name, "does not have the columns of a published file")
                    continue
                wrong: Counter[str] = Counter()
                for batch in self._batches(file, parquet):
                    table = DATASET_FILES.upgraded(pa.Table.from_batches([batch]))
                    wrong += wrong_rows(table, part, subset)
                    if not ascending(last, sample_ids(table)):
                        self._problem(file.name, "has rows whose SAMPLE_ID repeats or is out of order")
                        break
                    last = int(sample_ids(table)[-1])
                    self.row_counts[part.crawl, subset.name] += table.num_rows
                    yield table
                for what, rows in wrong.items():
                    self._problem(file.name, f"has {quantity(rows, 'row')} {what}")

    def _batches(self, file: DataFile, parquet: BoundedParquet) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file; what cannot be read of it is a problem of this file alone."""
        try:
            yield from parquet.iter_batches(ROWS_PER_READ)
        except (pa.ArrowException, OSError) as error:
            self._problem(file.name, f"cannot be read to its end ({error})")

    def _has_its_columns(self, schema: pa.Schema, part: ManifestPart) -> bool:
        """Whether a file has the columns of its version; one of another version may have any known ones."""
        if not has_columns(schema, part.columns):
            return False
        number = DATASET_FILES.number_of(schema)
        own = part.version == self.manifest.release.version
        return number == self.manifest.schema_number if own else number is not None

    def _counted(self, part: ManifestPart, stream: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Pass rows on while counting how many each overlapping subset should have."""
        chosen = [subset for subset in self._get_subsets(part) if subset.name not in LANGUAGE_SUBSETS]
        for table in stream:
            for subset in chosen:
                self.fitting[part.crawl, subset.name] += pc.sum(subset.selects(table)).as_py() or 0
            yield table.select(["SAMPLE_ID"])

    def _find_repeated(self, streams: list[Iterator[pa.Table]]) -> None:
        repeated = 0
        for window in merge_by_id(streams):
            ids = np.sort(np.concatenate([sample_ids(table) for table in window]))
            self.report.rows += ids.size
            self.batches.update(np.unique(batch_of(ids)).tolist())
            repeated += int(np.count_nonzero(np.diff(ids) == 0))
        if repeated:
            self._problem(self.manifest.release.folder, f"{repeated:,} SAMPLE_IDs are in several files")

    def check_counts(self) -> None:
        """Compare the manifest's counts with the rows, unless damage has been reported already."""
        if self.report.problems:
            return
        name, document = self.manifest.release.file(NAME), self.manifest.document
        for subset in document["subsets"]:
            found = sum(count for (_, kind), count in self.row_counts.items() if kind == subset["name"])
            if found != subset["rows"]:
                self._problem(name, f"says {subset['rows']:,} rows of {subset['name']}, there are {found:,}")
        if self.report.rows != document["rows"]:
            self._problem(name, f"says {document['rows']:,} rows, there are {self.report.rows:,}")
        for part in self.manifest.parts:
            for subset, rows in part.subsets.items():
                if rows != self.row_counts[part.crawl, subset]:
                    has = self.row_counts[part.crawl, subset]
                    self._problem(
                        name, f"says {quantity(rows, 'row')} of {subset} of {part.crawl}, there are {has:,}"
                    )
        for (crawl, subset), count in self.fitting.items():
            if count != self.row_counts[crawl, subset]:
                has = self.row_counts[crawl, subset]
                self._problem(
                    name,
                    f"{subset} of {crawl} has {quantity(has, 'row')}, by its rule it should have {count:,}",
                )

    def _opened(self, file: DataFile) -> BinaryIO:
        """Return the open file after checking its size and SHA-256."""
        self.report.files += 1
        if not self.store.exists(file.name):
            self._problem(file.name, "is missing")
            raise _Unreadable
        raw = self.store.open(file.name)
        digest, size = hashlib.sha256(), 0
        while block := raw.read(_BYTES_PER_READ):
            digest.update(block)
            size += len(block)
        self.report.bytes += size
        if self.on_bytes is not None:
            self.on_bytes(self.report.bytes, sum(one.bytes for one in self.files))
        if (size, digest.hexdigest()) != (file.bytes, file.sha256):
            raw.close()
            self._problem(file.name, f"has other bytes than the manifest says ({size:,}, not {file.bytes:,})"
                          if size != file.bytes else "has other bytes than the manifest says")  # fmt: skip
            raise _Unreadable
        raw.seek(0)
        return raw

    def _parquet(self, file: DataFile, raw: BinaryIO) -> BoundedParquet:
        try:
            parquet = BoundedParquet(raw)
        except (pa.ArrowException, OSError) as error:
            self._problem(file.name, f"cannot be read as parquet ({error})")
            raise _Unreadable from error
        if parquet.metadata.num_rows != file.rows:
            rows = parquet.metadata.num_rows
            self._problem(file.name, f"has {quantity(rows, 'row')}, the manifest says {file.rows:,}")
        return parquet

    def _problem(self, file: str, what: str) -> None:
        self.report.problems.append(Problem(file, what))


class _Unreadable(Exception):  # noqa: N818 - a signal within this module
    """The file has been reported and cannot be checked further."""
