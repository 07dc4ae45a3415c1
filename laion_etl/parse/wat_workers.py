"""Turns WAT files into tables of pairs, in this process or in several."""

import multiprocessing
import os
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.blocklists import Blocklists, load_blocklists
from laion_etl.blocklists.removal_requests import NO_LINKS, BlockedLinks
from laion_etl.core.funnel import Outcomes, ParseReason, RecordReason
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.numba_cache import ensure_compiled
from laion_etl.core.schemas import PAIR_SCHEMA
from laion_etl.parse.custom_filters import LinkFilter, keep_passing, load_filters
from laion_etl.parse.language import LanguageDetector, NoDetector, language_detector, languages_kept
from laion_etl.parse.link_filters import LinkFilters
from laion_etl.parse.link_source import LinkSource, link_source
from laion_etl.settings import Settings

_DAMAGES_NAMED = 100


@dataclass(slots=True)
class FileCounts:
    """Counts of one WAT file, or of several together."""

    records: Outcomes[RecordReason] = field(default_factory=Outcomes)
    links: Outcomes[ParseReason] = field(default_factory=Outcomes)
    custom: Counter[str] = field(default_factory=Counter)  # links dropped by custom filters
    damaged: list[list[int]] = field(default_factory=list)  # WAT file, offset: the first damaged members

    @property
    def input(self) -> int:
        """Image links read."""
        return self.links.input + self.custom.total()

    @property
    def dropped(self) -> dict[str, int]:
        """Links per reason, most frequent first, ties by name."""
        both = Counter(self.links.dropped) + self.custom
        return dict(sorted(both.items(), key=lambda item: (-item[1], item[0])))

    def add(self, other: "FileCounts") -> None:
        self.records.add(other.records)
        self.links.add(other.links)
        self.custom.update(other.custom)
        self.name_damages(other.damaged)

    def name_damages(self, damaged: list[list[int]]) -> None:
        """Lists the first 100 damaged members; the others are only counted, in `records`."""
        self.damaged += damaged[: _DAMAGES_NAMED - len(self.damaged)]


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
        self._source = source or link_source(settings.parse)
        self._filters = (*load_filters(settings.parse), *filters)
        self._settings = settings.parse
        lists = load_blocklists(settings.parse, settings.data_path)
        self._blocklists: Blocklists = lists.joined(removed.blocklists())
        self._detector: LanguageDetector = language_detector(settings.parse)
        self._languages_kept = pa.array(languages_kept(settings.parse, self._detector), pa.string())

    def pairs(self, wat_file: int, uri: str, counts: FileCounts) -> Iterator[pa.Table]:
        """Yields the pairs of a file in the order of its links, in tables of PAIR_SCHEMA; fills `counts`."""
        filters = LinkFilters(self._settings, self._blocklists, counts.links)
        for batch in self._source.batches(uri):
            counts.records.add(batch.records)
            counts.name_damages([[wat_file, damage.offset] for damage in batch.damages])
            for table in filters.pairs(batch):
                wanted = self._in_wanted_languages(self._with_languages(table, wat_file), counts)
                wanted = self._passing(wanted, counts)
                if wanted.num_rows:
                    yield wanted

    def _passing(self, table: pa.Table, counts: FileCounts) -> pa.Table:
        """Keeps the rows that custom filters let pass; moves the others from kept to dropped."""
        if not self._filters:
            return table
        kept = keep_passing(self._filters, table, counts.custom)
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

    def _with_languages(self, table: pa.Table, wat_file: int) -> pa.Table:
        codes, probabilities = self._languages(table["caption"])
        columns = {name: table[name] for name in table.column_names} | {
            "language": codes,
            "language_probability": probabilities,
            "wat_file": pa.repeat(pa.scalar(wat_file, pa.int32()), table.num_rows),
        }
        return pa.table([columns[name] for name in PAIR_SCHEMA.names], schema=PAIR_SCHEMA)

    def _languages(self, texts: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
        """Returns codes and probabilities; a repeated text is classified once."""
        if isinstance(self._detector, NoDetector):
            return pa.repeat(pa.scalar(""), len(texts)), pa.repeat(pa.scalar(0, pa.float32()), len(texts))
        distinct = texts.combine_chunks().dictionary_encode()
        found = self._detector.detect(distinct.dictionary.to_pylist())
        codes = pa.array(found.codes, pa.string()).take(distinct.indices)
        return codes, pa.array(found.probabilities, pa.float32()).take(distinct.indices)


def parse_files(
    wat_files: Sequence[tuple[int, str]], settings: Settings, removed: BlockedLinks = NO_LINKS
) -> Iterator[tuple[Iterator[pa.Table], FileCounts]]:
    """Yields the tables of each file in the given order; its counts are complete once they are consumed.

    Uses `settings.parse.jobs` processes (0: one per usable core).
    """
    ensure_compiled()
    jobs = min(settings.parse.jobs or usable_cores(), len(wat_files))
    if jobs > 1:
        yield from _in_processes(wat_files, settings, removed, jobs)
        return
    parser = FileParser(settings, removed)
    for index, uri in wat_files:
        counts = FileCounts()
        yield parser.pairs(index, uri, counts), counts


@cache
def _parser(settings: Settings, removed: BlockedLinks) -> FileParser:
    """Returns the parser of a worker process: created for its first file, reused for the others."""
    return FileParser(settings, removed)


def _parse_into(
    settings: Settings, removed: BlockedLinks, folder: str, wat_file: int, uri: str
) -> tuple[str, FileCounts]:
    """Runs in a worker process: writes the tables of a file to disk, so that none waits in memory."""
    counts = FileCounts()
    path = Path(folder) / f"{wat_file}-{os.getpid()}.arrows"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, PAIR_SCHEMA) as writer:
        for table in _parser(settings, removed).pairs(wat_file, uri, counts):
            writer.write_table(table)
    return str(path), counts


def _in_processes(
    wat_files: Sequence[tuple[int, str]], settings: Settings, removed: BlockedLinks, jobs: int
) -> Iterator[tuple[Iterator[pa.Table], FileCounts]]:
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="laion_etl-parse-") as folder,
        ProcessPoolExecutor(jobs, context) as pool,
    ):
        waiting = deque(wat_files)
        running: deque[Future[tuple[str, FileCounts]]] = deque()
        try:
            while waiting or running:
                while waiting and len(running) <= jobs:  # one more, so that none waits for the writer
                    running.append(pool.submit(_parse_into, settings, removed, folder, *waiting.popleft()))
                path, counts = running.popleft().result()
                yield _tables_of(Path(path)), counts
        finally:
            pool.shutdown(cancel_futures=True)


def _tables_of(path: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])
    path.unlink()
