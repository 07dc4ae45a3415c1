"""Writes the pairs of a partition whose keys are free, over several connections, in short transactions.

Each connection handles one range of keys in short runs, a transaction each: a run is looked up and then
written at once, while its part of the index is still in the caches. Rows are found by their keys, so a load
that was interrupted simply goes on: a run that was written then only costs its look-up.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from psycopg import Connection

from laion_etl.database.binary_copy import copy_in
from laion_etl.database.conflicts import KEYS_PER_CHUNK, ExistingRows, Rows, probe
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Candidates, DedupeRule, PairsFile, Segment
from laion_etl.database.kernels import Ints, Longs
from laion_etl.database.locks import HeldLocks
from laion_etl.database.queries import query


@dataclass(frozen=True, slots=True)
class FreeKeys:
    """The part of a load that needs no decision. `is_resumed`: the partition may have rows already."""

    held: HeldLocks
    partition_no: int
    rule: DedupeRule
    is_resumed: bool
    timeout_s: float

    def insert(self, others: Sequence[Database], pairs: PairsFile, candidates: Candidates) -> ExistingRows:
        """Writes the candidates whose keys are free, and their pages; returns rows of others with their keys.

        Pairs go through the other connections, pages through that of the locks.
        """
        rows_of_others: list[Rows] = []
        with ExitStack() as stack:
            threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in others]
            for segment in pairs.segments(0):
                mine = candidates.where(segment.holds(candidates))
                is_sent = np.zeros(len(segment.pages), np.bool_)
                ranges = [mine.where(part) for part in _even_slices(len(mine), len(others))]
                work = [
                    thread.submit(self._insert_chunk, other, segment, chunk)
                    for thread, other, part in zip(threads, others, ranges, strict=True)
                    for chunk in part.chunks(KEYS_PER_CHUNK)
                ]
                try:
                    for done in as_completed(work):
                        rows, found = done.result()
                        rows_of_others.append(found)
                        pages = np.unique(segment.pages[rows - segment.start])
                        new = pages[~is_sent[pages - segment.pages[0]]]
                        is_sent[new - segment.pages[0]] = True
                        self._insert_pages(segment, new)
                finally:
                    for future in work:
                        future.cancel()
        return ExistingRows.from_rows(rows_of_others, candidates, self.rule)

    def _insert_chunk(self, database: Database, segment: Segment, chunk: Candidates) -> tuple[Longs, Rows]:
        """Returns the rows of the file that are stored now, and the rows of others with the other keys."""

        def insert(connection: Connection) -> tuple[Longs, Rows]:
            connection.execute(query("load.lazy_commit"))
            connection.execute(query("load.only_index_scans"))
            existing = probe(connection, chunk, self.rule)
            others = existing[existing["owner"] != self.partition_no]
            mine = _without(chunk, others)
            free = _without(chunk, existing)
            if len(free):
                with copy_in(connection, "load.copy_pairs") as send:
                    send(segment.pair_rows(free, self.partition_no))
            return mine.rows, others

        return self.held.run(insert, self.timeout_s, database)

    def _insert_pages(self, segment: Segment, pages: Ints) -> None:
        """Writes pages, all of them unless this is a second attempt."""
        if not len(pages):
            return
        tries = int(self.is_resumed)

        def insert(connection: Connection) -> None:
            nonlocal tries
            connection.execute(query("load.lazy_commit"))
            new = pages
            if tries:
                keys = {"partition_no": self.partition_no, "pages": pages.tolist()}
                rows = connection.execute(query("load.pages_among"), keys).fetchall()
                new = np.setdiff1d(pages, np.array([page for (page,) in rows], np.int32))
            tries += 1
            if len(new):
                with copy_in(connection, "load.copy_pages") as send:
                    send(segment.page_rows(new, self.partition_no))

        self.held.run(insert, self.timeout_s)


def _without(chunk: Candidates, rows: Rows) -> Candidates:
    return chunk.where(~chunk.among(np.sort(rows["key"]))) if len(rows) else chunk


def _even_slices(count: int, parts: int) -> list[slice]:
    bounds = [count * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]
