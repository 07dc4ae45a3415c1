"""Keeps an index usable after a removal: the rows that a version lost leave it at once.

The parts of the crawls that lost rows are written again without them, and with zeros in place of vectors that
no row has any more; such a node only links others. That reads and writes the parts once, while building them
again takes a core minutes for 100,000 rows. `laion-etl search index` builds them again when it is next run.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.ids import batch_name
from laion_etl.core.schemas import batch_of, scored_stem
from laion_etl.core.stage_stats import StageStats, fingerprint
from laion_etl.dataset.manifest import ManifestPart, read_manifest
from laion_etl.dataset.versions import Release, read_versions
from laion_etl.io.storage import Store, local_copy
from laion_etl.io.tarshard import SequentialFile
from laion_etl.search.graph_file import erase
from laion_etl.search.index_record import COUNTED, most_frequent, nodes_of, whole_index
from laion_etl.search.layout import FORMAT, PARTS, STATS, index_stats, part_stem
from laion_etl.search.published_rows import PublishedBatch, PublishedVersion, batches_of, find_published
from laion_etl.search.rows import (
    counted,
    image_places,
    open_rows,
    stored_schema,
    with_new_places,
    with_nodes,
)

_log = logging.getLogger(__name__)

_UNUSABLE = (InputError, MissingFileError, DamagedFileError)

Mask = NDArray[np.bool_]


def mask_removed(dataset: str, crawls: tuple[str, ...], store: Store) -> None:
    """Give the current version an index without the rows of these crawls that it has lost.

    It is made from that of the version before which had one of its own rows, if all crawls are published
    from the same scores: else the same samples may have other vectors. All other parts of these crawls, which
    may hold the removed rows, and the records of all other versions are deleted. Without a usable index there
    is only the deletion; without a part of these crawls there is nothing to do.
    """
    names = store.list(f"index/{dataset}")
    if not any(_is_part_of(name, crawls) for name in names):
        return
    versions = read_versions(dataset, store)
    kept: set[str] = set()
    if versions.current is not None:
        published = find_published(dataset, "", store)
        try:
            record = _own(published, store) or _masked(published, crawls, store)
        except _UNUSABLE as error:
            _log.warning("the index of %s is deleted, index it again: %s", published.release.folder, error)
            record = None
        if record is not None:
            stems = {part_stem(dataset, part["crawl"], part["unit"]) for part in record.details["parts"]}
            kept = {stem + ending for stem in stems for ending in (STATS, ".usearch", ".arrow")}
            kept.add(index_stats(published.release))
    for name in store.list(f"index/{dataset}"):
        is_part = name.split("/")[2] == PARTS
        if name not in kept and (not is_part or _is_part_of(name, crawls)):
            store.delete(name)


def _is_part_of(name: str, crawls: tuple[str, ...]) -> bool:
    """Whether a file of an index is of a part of one of these crawls."""
    folders = name.split("/")[2:4]
    return folders[0] == PARTS and folders[-1] in crawls


def _own(published: PublishedVersion, store: Store) -> StageStats | None:
    """Return the record of the version's own index, if it is of its rows."""
    name = index_stats(published.release)
    if not store.exists(name):
        return None
    record = store.read_stats(name)
    return record if record.details["published"] == published.fingerprint else None


def _masked(published: PublishedVersion, crawls: tuple[str, ...], store: Store) -> StageStats | None:
    """Write the index of the version from an earlier one; None if none has all of its rows."""
    found = _earlier(published, store)
    if found is None:
        return None
    earlier, record = found
    if not _has_its_scores(earlier, published):
        return None  # the same samples may have other vectors
    changed = {*crawls, *_other_crawls(earlier, published)}
    batches = _Published(published, tuple(sorted(changed)), store)
    rows = Counter[str]()
    parts = []
    for part in record.details["parts"]:
        stats = store.read_stats(part_stem(published.release.name, part["crawl"], part["unit"]) + STATS)
        if not {*stats.outputs} <= {*record.outputs}:
            return None  # the part was written again since the index was
        if stats.crawl in changed:
            stats = _masked_part(published.release.name, stats, batches, store)
        if stats.kept:
            parts.append(stats)
            rows[stats.crawl] += stats.kept
    if rows != Counter({part.crawl: part.rows for part in published.manifest.parts}):
        return None  # it has rows that were never indexed
    wanted = fingerprint("masked index", FORMAT, published.fingerprint)
    return store.write_stats(index_stats(published.release), whole_index(published, wanted, parts))


def _earlier(published: PublishedVersion, store: Store) -> tuple[PublishedVersion, StageStats] | None:
    """Return the last version that has an index of its own rows, and the record of that."""
    name = published.release.name
    for one in reversed(read_versions(name, store).listed):
        if not store.exists(index_stats(Release(name, one.version))):
            continue
        earlier = PublishedVersion(read_manifest(name, one, store))
        if (record := _own(earlier, store)) is not None:
            return earlier, record
    return None


def _has_its_scores(earlier: PublishedVersion, published: PublishedVersion) -> bool:
    """Whether every crawl of the version was published from the scores that the earlier one was."""
    before = {part.crawl: part for part in earlier.manifest.parts}
    return all(
        part.crawl in before
        and part.scores == before[part.crawl].scores
        and (part.scores or _is_same(part, before))
        for part in published.manifest.parts
    )


def _other_crawls(earlier: PublishedVersion, published: PublishedVersion) -> set[str]:
    """Return the crawls of the earlier version that the version does not have with the same rows."""
    now = {part.crawl: part for part in published.manifest.parts}
    return {part.crawl for part in earlier.manifest.parts if not _is_same(part, now)}


def _is_same(part: ManifestPart, others: Mapping[str, ManifestPart]) -> bool:
    other = others.get(part.crawl)
    return other is not None and (part.version, part.fingerprint) == (other.version, other.fingerprint)


class _Published:
    """The published ids of batches; those of a crawl are asked for in ascending order."""

    def __init__(self, published: PublishedVersion, crawls: tuple[str, ...], store: Store) -> None:
        self._batches = {crawl: _batches(published, crawl, store) for crawl in crawls}
        self._next = {crawl: next(batches, None) for crawl, batches in self._batches.items()}

    def ids(self, crawl: str, number: int) -> NDArray[np.int64]:
        """Return the ids of a batch; none if all of it is gone."""
        found = self._next[crawl]
        if found is None or found.number != number:
            return np.empty(0, np.int64)
        self._next[crawl] = next(self._batches[crawl], None)
        return found.ids


def _batches(published: PublishedVersion, crawl: str, store: Store) -> Iterator[PublishedBatch]:
    for one in published.ranges:
        if one.crawl == crawl:
            yield from batches_of(one, store)


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of a part by batch, and which of them stay."""

    rows: pa.Table
    nodes: NDArray[np.int64]
    keep: Mask
    spans: tuple[tuple[int, int, int], ...]  # batch, first row and the row after the last

    @classmethod
    def read(cls, path: Path, stats: StageStats, batches: _Published) -> "_Part":
        rows, nodes = open_rows(path, stats.kept, nodes_of(stats))
        ids = rows["SAMPLE_ID"].to_numpy()
        numbers = batch_of(ids)
        starts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(ids)]
        spans = tuple((int(numbers[start]), start, end) for start, end in pairwise(starts))
        keep = [np.isin(ids[start:end], batches.ids(stats.crawl, number)) for number, start, end in spans]
        return cls(rows, nodes, np.concatenate(keep), spans)

    def write(self, target: SequentialFile, crawl: str, store: Store) -> None:
        """Write the rows that stay."""
        with pa.ipc.new_file(target, stored_schema()) as writer:
            for number, start, end in self.spans:
                keep = self.keep[start:end]
                rows = self.rows.slice(start, end - start).filter(pa.array(keep))
                if not keep.all():
                    rows = _placed(rows, crawl, number, store)
                writer.write_table(with_nodes(rows.combine_chunks(), self.nodes[start:end][keep]))


def _masked_part(dataset: str, stats: StageStats, batches: _Published, store: Store) -> StageStats:
    """Write a part without the rows that are gone; return its record, or the same one if it lost none."""
    with TemporaryDirectory(prefix="laion-etl-index-") as folder:
        graph, rows = (local_copy(store, output, Path(folder)) for output in stats.outputs)
        part = _Part.read(rows, stats, batches)
        if part.keep.all():
            return stats
        stayed = hashlib.sha256(np.packbits(part.keep).tobytes()).hexdigest()
        made_from = fingerprint("masked part", FORMAT, stats.fingerprint, stayed)
        unit = f"{batch_name(part.spans[0][0])}-{made_from}"
        stem = part_stem(dataset, stats.crawl, unit)
        with store.create(f"{stem}.arrow") as rows_file:
            part.write(rows_file, stats.crawl, store)
        with store.create(f"{stem}.usearch") as graph_file:
            erase(graph, graph_file, np.setdiff1d(np.arange(nodes_of(stats)), part.nodes[part.keep]))
        left = part.rows.filter(pa.array(part.keep))
        counts = {what: most_frequent([dict(counted(left, column))]) for what, column in COUNTED.items()}
        masked = replace(
            stats,
            unit=unit,
            fingerprint=made_from,
            kept=left.num_rows,
            dropped={"not_published": stats.input - left.num_rows},
            outputs=(graph_file.output, rows_file.output),
            details={**stats.details, "nodes": nodes_of(stats), **counts},
        )
        return store.write_stats(stem + STATS, masked)


def _placed(rows: pa.Table, crawl: str, number: int, store: Store) -> pa.Table:
    """Return rows with the places of their images in the shard, which was rewritten."""
    if not rows.num_rows or rows["picture_offset"].null_count == rows.num_rows:
        return rows
    return with_new_places(rows, image_places(f"{scored_stem(crawl, number)}.tar", store))
