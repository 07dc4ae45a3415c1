"""WAT files -> tables of pairs, in this process or in several."""

import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.compiled import ensure_compiled
from laion_etl.funnel import Outcomes, ParseReason, RecordReason
from laion_etl.inputs import open_input
from laion_etl.machine import usable_cores
from laion_etl.parse.batches import read_batches
from laion_etl.parse.blocklist import Blocklists, load_blocklists
from laion_etl.parse.language import Detector, NoDetector, language_detector, languages_kept
from laion_etl.parse.pairs import LinkRules
from laion_etl.records import PAIR_SCHEMA
from laion_etl.removals import NO_LINKS, BlockedLinks
from laion_etl.settings import Settings

_DAMAGES_NAMED = 100


@dataclass(slots=True)
class FileCounts:
    """What was counted in one WAT file, or in several together."""

    records: Outcomes[RecordReason] = field(default_factory=Outcomes)
    links: Outcomes[ParseReason] = field(default_factory=Outcomes)
    damaged: list[list[int]] = field(default_factory=list)  # WAT file, offset: the first damaged members

    def add(self, other: "FileCounts") -> None:
        self.records.add(other.records)
        self.links.add(other.links)
        self.name_damages(other.damaged)

    def name_damages(self, damaged: list[list[int]]) -> None:
        """Keeps the first 100; the others are only counted, in `records`."""
        self.damaged += damaged[: _DAMAGES_NAMED - len(self.damaged)]


class FileParser:
    """Turns WAT files into pairs; duplicates are known within a file."""

    def __init__(self, settings: Settings, removed: BlockedLinks = NO_LINKS) -> None:
        self._settings = settings.parse
        lists = load_blocklists(settings.parse, settings.data_path)
        self._blocklists: Blocklists = lists.joined(removed.blocklists())
        self._detector: Detector = language_detector(settings.parse)
        self._languages_kept = pa.array(languages_kept(settings.parse, self._detector), pa.string())

    def pairs(self, wat_file: int, uri: str, counts: FileCounts) -> Iterator[pa.Table]:
        """The pairs of one file in the order of its links, as tables of PAIR_SCHEMA; counts what was met."""
        rules = LinkRules(self._settings, self._blocklists)
        with open_input(uri) as stream:
            for batch in read_batches(stream, uri):
                counts.records.add(batch.records)
                counts.name_damages([[wat_file, damage.offset] for damage in batch.damages])
                for table in rules.pairs(batch):
                    asked_for = self._asked_for(self._with_languages(table, wat_file), counts)
                    if asked_for.num_rows:
                        yield asked_for
        counts.links.add(rules.outcomes)

    def _asked_for(self, table: pa.Table, counts: FileCounts) -> pa.Table:
        """The rows in one of the languages that are kept; the others are counted from kept to dropped."""
        if not self._languages_kept:
            return table
        kept = table.filter(pc.is_in(table["language"], self._languages_kept))
        counts.links.keep(kept.num_rows - table.num_rows)
        counts.links.drop(ParseReason.LANGUAGE_NOT_ASKED_FOR, table.num_rows - kept.num_rows)
        return kept

    def _with_languages(self, table: pa.Table, wat_file: int) -> pa.Table:
        codes, probabilities = self._languages(table["alt"])
        columns = {name: table[name] for name in table.column_names} | {
            "language": codes,
            "language_probability": probabilities,
            "wat_file": pa.repeat(pa.scalar(wat_file, pa.int32()), table.num_rows),
        }
        return pa.table([columns[name] for name in PAIR_SCHEMA.names], schema=PAIR_SCHEMA)

    def _languages(self, texts: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
        """Codes and probabilities; a text that comes several times is judged once."""
        if isinstance(self._detector, NoDetector):
            return pa.repeat(pa.scalar(""), len(texts)), pa.repeat(pa.scalar(0, pa.float32()), len(texts))
        distinct = texts.combine_chunks().dictionary_encode()
        found = self._detector.detect(distinct.dictionary.to_pylist())
        codes = pa.array(found.codes, pa.string()).take(distinct.indices)
        return codes, pa.array(found.probabilities, pa.float32()).take(distinct.indices)


def parsed_files(
    wat_files: Sequence[tuple[int, str]], settings: Settings, removed: BlockedLinks = NO_LINKS
) -> Iterator[tuple[Iterator[pa.Table], FileCounts]]:
    """The tables of every file in the order given; its counts are complete once its tables are used up.

    `settings.parse.jobs` processes work at it (0: as many as this process may use cores).
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
    """Of a worker process: made for its first file, used for the others."""
    return FileParser(settings, removed)


def _parse_into(
    settings: Settings, removed: BlockedLinks, folder: str, wat_file: int, uri: str
) -> tuple[str, FileCounts]:
    """In a worker process: the tables of a file as an Arrow stream on disk, so that none waits in memory."""
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
