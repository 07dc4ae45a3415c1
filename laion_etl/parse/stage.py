"""Parse stage: WAT files of one partition -> pairs parquet.

WAT files are parsed one by one or in several processes. Either way their pairs are merged in the order of the
files and duplicates between files are dropped, so the output does not depend on the number of processes.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from laion_etl.blocklists import load_blocklists
from laion_etl.blocklists.removal_requests import BlockedLinks, blocked_links, read_requests
from laion_etl.core.errors import InputError
from laion_etl.core.funnel import ParseReason
from laion_etl.core.schemas import PAIR_SCHEMA, parse_stats_name, partition_name
from laion_etl.core.stage_stats import Output, StageStats, fingerprint
from laion_etl.crawl import written_numbers
from laion_etl.io.storage import Store
from laion_etl.parse.checkpoints import Checkpoints, delete_checkpoints
from laion_etl.parse.dedupe import RecentPairs
from laion_etl.parse.file_counts import FileCounts, SourceCounts
from laion_etl.parse.internal_errors import check_something_is_left
from laion_etl.parse.kernels.pairs import FRESH, SAME_ID, SEEN
from laion_etl.parse.link_filters import RULES_VERSION
from laion_etl.parse.wat_workers import parse_files
from laion_etl.settings import ParseSettings, Settings, Stage, shaping
from laion_etl.settings.provenance import unit_settings
from laion_etl.urls import normalize

_log = logging.getLogger(__name__)

OnFile = Callable[[int, int], None]
_ParsedFile = tuple[Iterator[pa.Table], FileCounts]
_ROWS_PER_GROUP = 10_000
_REPEATED = [
    "language",
    "license",
    "page_url",
    "domain",
    "wat_file",
    "caption_source",
    "page_lang",
]  # columns worth a dictionary


def parse_partition(
    crawl: str,
    partition: int,
    wat_files: Sequence[tuple[int, str]],
    settings: Settings,
    store: Store,
    on_file: OnFile | None = None,
) -> StageStats:
    """Parses (index in wat.paths, URI) files into `pairs/<crawl>/part-<partition>.parquet`.

    The stats count image links; `details.records` counts the WAT records, and `details.damaged` lists the
    first damaged ones as (WAT file, offset); `details.caption_sources` counts by source, where there are
    several. `on_file` receives the files done and the total. Raises
    InputError for a file that is not readable at all, InternalError if rules failed too often. Files that
    were finished before that are not parsed again by the next attempt.
    """
    unit = partition_name(partition)
    removed = blocked_links(read_requests(store))
    unit_fingerprint = parse_fingerprint(wat_files, settings, blocked_fingerprint(settings))
    stats_name = parse_stats_name(crawl, partition)
    done = store.finished(stats_name, unit_fingerprint)
    if done is not None:
        delete_checkpoints(store, crawl, unit)  # one that was killed after it wrote its stats left them
        return done
    # A removal rewrites finished files of pairs, and no checkpoints: those are of the requests of their time.
    checkpoints = _checkpoints(crawl, unit, wat_files, settings, store, _blocked(settings, removed))
    store.delete(stats_name)  # until it is parsed anew, or the pairs of older rules would pass for these
    parsed = parse_files(wat_files, settings, removed, checkpoints)
    counts, output = _write_pairs(crawl, unit, parsed, len(wat_files), settings, store, on_file)
    # A removal that begins later sees the file, and takes its pairs out of it.
    if blocked_links(read_requests(store)) != removed:
        raise InputError(
            f"cannot finish parsing {unit} of {crawl}: a removal was requested meanwhile; parse it again"
        )
    stats = StageStats(
        stage="parse",
        crawl=crawl,
        unit=unit,
        fingerprint=unit_fingerprint,
        input=counts.input,
        kept=counts.links.kept,
        dropped=counts.dropped,
        outputs=(output,),
        details=_details(wat_files, settings, counts),
    )
    store.write_stats(stats_name, stats)
    _log_errors(unit, counts)
    delete_checkpoints(store, crawl, unit)
    return stats


def _write_pairs(
    crawl: str,
    unit: str,
    parsed: Iterator[_ParsedFile],
    files: int,
    settings: Settings,
    store: Store,
    on_file: OnFile | None,
) -> tuple[FileCounts, Output]:
    """Write the pairs of parsed files; return their counts and the file."""
    merged = _Merged(settings.parse)

    def tables() -> Iterator[pa.Table]:
        for position, (rows, counts) in enumerate(parsed, 1):
            yield from merged.new_pairs(rows) if files > 1 else rows
            merged.counts.add(counts)
            if on_file is not None:
                on_file(position, files)

    with (
        store.create(f"pairs/{crawl}/{unit}.parquet") as file,
        pq.ParquetWriter(file, PAIR_SCHEMA, compression="zstd", use_dictionary=_REPEATED) as writer,
    ):
        for group in row_groups(tables()):
            writer.write_table(group)
        check_something_is_left(unit, merged.counts.failures, merged.counts.links.kept, merged.counts.errors)
    return merged.counts, file.output


def _details(wat_files: Sequence[tuple[int, str]], settings: Settings, counts: FileCounts) -> dict[str, Any]:
    return {
        "wat_files": len(wat_files),
        "wat_numbers": written_numbers(number for number, _ in wat_files),
        "rules": plain_rules(settings),
        "settings": unit_settings(settings, Stage.PARSE),
        "damaged": counts.damaged,
        "records": {
            "input": counts.records.input,
            "kept": counts.records.kept,
            "dropped": counts.records.dropped,
        },
        **_sources(counts),
        **_errors(counts),
    }


def parse_fingerprint(wat_files: Sequence[tuple[int, str]], settings: Settings, blocked: str) -> str:
    """The fingerprint of a partition parsed by these settings and the rules of this version of the code.

    `blocked` is the fingerprint of what is blocked. Of a finished partition those are the blocklists alone: a
    removal takes its pairs out of finished files, so these stay finished.
    """
    rules = (RULES_VERSION, normalize.RULE_VERSION)
    return fingerprint("parse", rules, shaping(settings, Stage.PARSE), list(wat_files), blocked)


def blocked_fingerprint(settings: Settings) -> str:
    """What differs whenever blocklists do."""
    return load_blocklists(settings.parse, settings.data_path).fingerprint


def plain_rules(settings: Settings) -> dict[str, Any]:
    """The settings by which pairs are chosen, as JSON has them."""
    rules: dict[str, Any] = json.loads(json.dumps(shaping(settings.parse, Stage.PARSE)["parse"]))
    return rules


def _sources(counts: FileCounts) -> dict[str, Any]:
    return {"caption_sources": counts.sources.to_plain()} if counts.sources.is_counted else {}


def _errors(counts: FileCounts) -> dict[str, Any]:
    return {"internal_errors": counts.errors.examples} if counts.errors.examples else {}


def _log_errors(unit: str, counts: FileCounts) -> None:
    for example in counts.errors.examples:
        _log.warning("a rule failed on %s: %s", example["page"], example["error"])
    if counts.failures:
        _log.warning("%s lost %d records and links to internal errors", unit, counts.failures)


def _checkpoints(
    crawl: str,
    unit: str,
    wat_files: Sequence[tuple[int, str]],
    settings: Settings,
    store: Store,
    blocked: str,
) -> Checkpoints | None:
    """Returns the checkpoints of a partition; None if it has a single file."""
    if len(wat_files) < 2:
        return None
    return Checkpoints(store, crawl, unit, lambda *file: parse_fingerprint([file], settings, blocked))


def _blocked(settings: Settings, removed: BlockedLinks) -> str:
    return load_blocklists(settings.parse, settings.data_path).joined(removed.blocklists()).fingerprint


class _Merged:
    """Merges the pairs and counts of the files of a partition."""

    def __init__(self, settings: ParseSettings) -> None:
        self.counts = FileCounts(sources=SourceCounts.of(settings.captions))
        self._seen = RecentPairs(settings.dedupe_pairs)

    def new_pairs(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Yields the pairs that earlier files do not have; moves the others from kept to duplicate."""
        for table in tables:
            ids = np.frombuffer(table["pair_id"].combine_chunks().buffers()[1], np.uint8)
            sizes = pc.binary_length(table["url"]).to_numpy()
            found = self._seen.add(ids.reshape(-1, 16)[: table.num_rows], sizes)
            fresh = found == FRESH
            known = table.num_rows - int(np.count_nonzero(fresh))
            if known:
                self.counts.sources.drop(table.filter(pa.array(~fresh)))
                self.counts.links.keep(-known)
                self.counts.links.drop(ParseReason.DUPLICATE, int(np.count_nonzero(found == SEEN)))
                self.counts.links.drop(ParseReason.SAME_ID, int(np.count_nonzero(found == SAME_ID)))
            if known < table.num_rows:
                yield table.filter(pa.array(fresh)) if known else table


def row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Regroups rows into row groups of one size, whatever the tables they arrive in."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= _ROWS_PER_GROUP:
            together = pa.concat_tables(waiting)
            yield together.slice(0, _ROWS_PER_GROUP).combine_chunks()
            waiting, rows = [together.slice(_ROWS_PER_GROUP)], rows - _ROWS_PER_GROUP
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()
