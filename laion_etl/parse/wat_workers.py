"""Turns WAT files into tables of pairs, in this process or in several."""

import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists import Blocklists, load_blocklists
from laion_etl.blocklists.removal_requests import NO_LINKS, BlockedLinks
from laion_etl.core.arrow_memory import save_arrow_memory
from laion_etl.core.background import end_with_parent_process
from laion_etl.core.errors import InputError, InternalError, KilledError
from laion_etl.core.funnel import ParseReason, RecordReason
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.numba_cache import ensure_compiled
from laion_etl.core.rule_failures import NOT_CONTAINED, described
from laion_etl.core.schemas import PAIR_SCHEMA
from laion_etl.crawl import file_policy
from laion_etl.parse.checkpoints import STREAM, Checkpoints, Saved, tables_of
from laion_etl.parse.custom_filters import LinkFilter, keep_passing, load_filters
from laion_etl.parse.file_counts import FileCounts, SourceCounts
from laion_etl.parse.internal_errors import InternalErrors, check_share
from laion_etl.parse.language import (
    LanguageDetector,
    NoDetector,
    detected,
    language_detector,
    languages_kept,
)
from laion_etl.parse.link_batch import LinkBatch
from laion_etl.parse.link_filters import LinkFilters
from laion_etl.parse.link_source import VARIABLE, LinkSource, WatSource, link_source
from laion_etl.parse.storable import storable
from laion_etl.parse.warc_source import WarcSource
from laion_etl.settings import Settings


class FileParser:
    """Turns WAT files into pairs; duplicates are dropped within a file."""

    def __init__(
        self,
        settings: Settings,
        removed: BlockedLinks = NO_LINKS,
        filters: Sequence[LinkFilter] = (),
        source: LinkSource | None = None,
    ) -> None:
        """Without a source, take that of the settings. Raises SettingsError for an unusable part."""
        self._source = source or link_source(settings.parse, file_policy(settings))
        self._filters = (*load_filters(settings.parse), *filters)
        self._settings = settings.parse
        lists = load_blocklists(settings.parse, settings.data_path)
        self._blocklists: Blocklists = lists.joined(removed.blocklists())
        self._detector: LanguageDetector = language_detector(settings.parse)
        self._languages_kept = pa.array(languages_kept(settings.parse, self._detector), pa.string())

    def pairs(self, wat_file: int, uri: str, counts: FileCounts) -> Iterator[pa.Table]:
        """Yields the pairs of a file in the order of its links, in tables of PAIR_SCHEMA; fills `counts`.

        Raises InternalError after the last table if rules failed for more than 1% of the records or links.
        """
        counts.sources = SourceCounts.of(self._settings.captions)
        filters = LinkFilters(self._settings, self._blocklists, counts)
        for batch in self._batches(uri):
            counts.records.add(batch.records)
            counts.errors.add(batch.errors)
            counts.name_damages([[wat_file, damage.offset] for damage in batch.damages])
            for table in filters.pairs(batch):
                wanted = self._with_languages(table, wat_file, counts)
                wanted = self._in_wanted_languages(storable(wanted, counts.links), counts)
                wanted = self._passing(wanted, counts)
                counts.sources.keep(wanted)
                if wanted.num_rows:
                    yield wanted
        failed_records = counts.records.count(RecordReason.INTERNAL_ERROR)
        check_share(uri, failed_records, counts.records.input, "records", counts.errors)
        check_share(uri, counts.failed_links, counts.input, "links", counts.errors)

    def _batches(self, uri: str) -> Iterator[LinkBatch]:
        """Yields what the source reads. An exception of a custom source costs its file, not the command."""
        try:
            yield from self._source.batches(uri)
        except NOT_CONTAINED:
            raise
        except Exception as error:
            if isinstance(self._source, (WatSource, WarcSource)):
                raise
            raise InternalError(
                f"cannot parse {uri}: the source {type(self._source).__name__} raised {described(error)}; "
                f"mend the source ({VARIABLE}), or let it yield a RecordReason for what it cannot read"
            ) from error

    def _passing(self, table: pa.Table, counts: FileCounts) -> pa.Table:
        """Keeps the rows that custom filters let pass; moves the others from kept to dropped."""
        if not self._filters:
            return table
        kept = keep_passing(self._filters, table, counts.custom, counts.errors.note)
        counts.links.keep(kept.num_rows - table.num_rows)
        return kept

    def _in_wanted_languages(self, table: pa.Table, counts: FileCounts) -> pa.Table:
        """Keeps the rows in the configured languages; moves the others from kept to dropped in the counts."""
        if not self._languages_kept:
            return table
        kept = table.filter(pc.is_in(table["language"], self._languages_kept))
        counts.links.keep(kept.num_rows - table.num_rows)
        counts.links.drop(ParseReason.LANGUAGE_NOT_ASKED_FOR, table.num_rows - kept.num_rows)
        return kept

    def _with_languages(self, table: pa.Table, wat_file: int, counts: FileCounts) -> pa.Table:
        codes, probabilities = self._languages(table, counts.errors)
        columns = {name: table[name] for name in table.column_names} | {
            "language": codes,
            "language_probability": probabilities,
            "wat_file": pa.repeat(pa.scalar(wat_file, pa.int32()), table.num_rows),
        }
        whole = pa.table([columns[name] for name in PAIR_SCHEMA.names], schema=PAIR_SCHEMA)
        if not codes.null_count:
            return whole
        counts.links.keep(-codes.null_count)
        counts.links.drop(ParseReason.INTERNAL_ERROR, codes.null_count)
        return whole.filter(codes.is_valid())

    def _languages(self, table: pa.Table, errors: InternalErrors) -> tuple[pa.Array, pa.Array]:
        """Returns codes and probabilities; a repeated text is classified once.

        Both are null for texts that the detector raises an exception for.
        """
        texts = table["caption"]
        if isinstance(self._detector, NoDetector):
            return pa.repeat(pa.scalar(""), len(texts)), pa.repeat(pa.scalar(0, pa.float32()), len(texts))
        distinct = texts.combine_chunks().dictionary_encode()

        def failed(text: int, error: Exception) -> None:
            first = pc.index(distinct.indices, text).as_py()
            errors.note(table["page_url"][first].as_py(), error)

        codes, probabilities = detected(self._detector, distinct.dictionary.to_pylist(), failed)
        return codes.take(distinct.indices), probabilities.take(distinct.indices)


def parse_files(
    wat_files: Sequence[tuple[int, str]],
    settings: Settings,
    removed: BlockedLinks = NO_LINKS,
    checkpoints: Checkpoints | None = None,
) -> Iterator[tuple[Iterator[pa.Table], FileCounts]]:
    """Yields the tables of each file in the given order; its counts are complete once they are consumed.

    Uses `settings.parse.jobs` processes (0: one per usable core). A file that has a checkpoint is not read;
    each of the others becomes one.
    """
    ensure_compiled()
    jobs = min(settings.parse.jobs or usable_cores(), len(wat_files))
    if jobs > 1:
        yield from _in_processes(wat_files, settings, removed, checkpoints, jobs)
        return
    parser = FileParser(settings, removed)
    for index, uri in wat_files:
        if checkpoints is not None and (saved := checkpoints.load(index, uri)) is not None:
            yield saved
            continue
        counts = FileCounts()
        tables = parser.pairs(index, uri, counts)
        yield (checkpoints.saving(index, uri, tables, counts) if checkpoints else tables), counts


@cache
def _parser(settings: Settings, removed: BlockedLinks) -> FileParser:
    """Returns the parser of a worker process: created for its first file, reused for the others."""
    save_arrow_memory()
    return FileParser(settings, removed)


def _parse_into(
    settings: Settings, removed: BlockedLinks, folder: str, wat_file: int, uri: str
) -> tuple[str, FileCounts]:
    """Runs in a worker process: writes the tables of a file to disk, so that none waits in memory."""
    counts = FileCounts()
    path = Path(folder) / f"{wat_file}-{os.getpid()}.arrows"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, PAIR_SCHEMA, options=STREAM) as writer:
        for table in _parser(settings, removed).pairs(wat_file, uri, counts):
            writer.write_table(table)
    return str(path), counts


@dataclass(slots=True)
class _Job:
    """A WAT file that a process parses; `is_saved` once it is a checkpoint."""

    wat_file: int
    uri: str
    future: Future[tuple[str, FileCounts]]
    is_saved: bool = False

    @property
    def is_parsed(self) -> bool:
        return self.future.done() and not self.future.cancelled() and self.future.exception() is None

    def save(self, checkpoints: Checkpoints | None) -> None:
        """Makes a checkpoint of it, if it is finished."""
        if self.is_parsed and not self.is_saved and checkpoints is not None:
            path, counts = self.future.result()
            checkpoints.save(self.wat_file, self.uri, Path(path), counts)
            self.is_saved = True


def _in_processes(
    wat_files: Sequence[tuple[int, str]],
    settings: Settings,
    removed: BlockedLinks,
    checkpoints: Checkpoints | None,
    jobs: int,
) -> Iterator[tuple[Iterator[pa.Table], FileCounts]]:
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="laion_etl-parse-") as folder,
        ProcessPoolExecutor(jobs, context, end_with_parent_process) as pool,
    ):
        waiting = deque(wat_files)
        running: deque[_Job | Saved] = deque()
        try:
            while waiting or running:
                while waiting and len(running) <= jobs:  # one more, so that none waits for the writer
                    number, uri = waiting.popleft()
                    saved = checkpoints.load(number, uri) if checkpoints else None
                    arguments = (settings, removed, folder, number, uri)
                    running.append(saved or _Job(number, uri, pool.submit(_parse_into, *arguments)))
                first = running[0]
                if isinstance(first, _Job):
                    _wait_for(first, running, checkpoints)
                    path, counts = first.future.result()
                    running.popleft()
                    yield _tables_of(Path(path)), counts
                else:
                    running.popleft()
                    yield first
        except BrokenProcessPool as error:
            _save(running, checkpoints)
            unfinished = [job.uri for job in _jobs(running) if not job.is_parsed]
            raise KilledError(
                f"cannot parse {' or '.join(unfinished)}: a process that parses was killed, most often "
                "because the machine ran out of memory; lower LAION_ETL_PARSE_JOBS or give it more memory"
            ) from error
        except (InputError, InternalError):  # of one file: what else is being parsed is not lost
            pool.shutdown(cancel_futures=True)
            _save(running, checkpoints)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _save(running: deque[_Job | Saved], checkpoints: Checkpoints | None) -> None:
    for job in _jobs(running):
        job.save(checkpoints)


def _wait_for(first: _Job, running: deque[_Job | Saved], checkpoints: Checkpoints | None) -> None:
    """Waits until a file is parsed; saves it, and all others that are parsed meanwhile."""
    while True:
        is_finished = first.future.done()  # asked before saving: it may finish during it
        _save(running, checkpoints)
        if is_finished:
            return
        wait([job.future for job in _jobs(running) if not job.future.done()], return_when=FIRST_COMPLETED)


def _jobs(running: deque[_Job | Saved]) -> list[_Job]:
    return [job for job in running if isinstance(job, _Job)]


def _tables_of(path: Path) -> Iterator[pa.Table]:
    yield from tables_of(pa.OSFile(str(path), "rb"))
    path.unlink()
