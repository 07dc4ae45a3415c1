"""Writes pairs and pages of a partition.

A page is stored once for all its pairs, whatever their ranges. So the pages of a range have to be there when
the range counts as loaded, also where another connection of the same loader, at work on another range, needs
them too: pages are written by one connection, in transactions that commit before those of the ranges.
Pages that no pair refers to in the end, because a transaction of a range failed, cost nothing but space.

The pairs of a range are on pages all over the file. Where most pairs are new, most pages are needed in the
end, and are written ahead in the order of the file: that takes half as long as in the order of the keys.
"""

import threading
from collections.abc import Callable

import numpy as np
from psycopg import Connection

from laion_etl.database.binary_copy import copy_in
from laion_etl.database.connection import Database
from laion_etl.database.dedupe_keys import Candidates
from laion_etl.database.kernels import Ints
from laion_etl.database.pair_texts import PairTexts
from laion_etl.database.queries import query

_PAGES_AHEAD = 1 << 17  # in one transaction, a fifth of a second


def copy_pairs(
    connection: Connection, partition_no: int, first_page: int, texts: PairTexts, candidates: Candidates
) -> None:
    """Writes candidates; their pages are numbered from `first_page` on."""
    if not len(candidates):
        return
    with copy_in(connection, "load.copy_pairs") as send:
        for block in texts.pair_rows(candidates, partition_no, first_page):
            send(block)


def copy_pages(
    connection: Connection, partition_no: int, first_page: int, texts: PairTexts, pages: Ints
) -> None:
    """Writes pages, all of which are new."""
    if not len(pages):
        return
    with copy_in(connection, "load.copy_pages") as send:
        for block in texts.page_rows(pages, partition_no, first_page):
            send(block)


def missing_pages(connection: Connection, partition_no: int, first_page: int, pages: Ints) -> Ints:
    """Returns which of these ascending pages are not stored."""
    keys = {"partition_no": partition_no, "pages": (pages + first_page).tolist()}
    rows = connection.execute(query("load.pages_among"), keys).fetchall()
    return np.setdiff1d(pages, np.array([page - first_page for (page,) in rows], np.int32))


class PageWriter:
    """Writes the pages of a partition, each once, for several threads."""

    def __init__(
        self, database: Database, partition_no: int, first_page: int, *, may_exist: bool, timeout_s: float
    ) -> None:
        self._database = database
        self._partition_no = partition_no
        self._first_page = first_page
        self._may_exist = may_exist
        self._timeout_s = timeout_s
        self._is_written = np.zeros(0, np.bool_)
        self._rest: Ints | None = None  # of all pages, those that write_ahead may have left
        self._lock = threading.Lock()

    def write(self, texts: PairTexts, pages: Ints) -> None:
        """Writes those of these ascending pages that are not written yet, and commits."""
        with self._lock:
            self._write(texts, pages)

    def write_ahead(self, texts: PairTexts, pages: Ints, all_pages: Callable[[], Ints]) -> None:
        """Writes pages like `write`, and the next ones of `all_pages`, which is called once."""
        with self._lock:
            if not len(self._not_written(pages)):
                return
            if self._rest is None:
                self._rest = all_pages()
            self._rest = self._not_written(self._rest)
            self._write(texts, np.union1d(pages, self._rest[:_PAGES_AHEAD]))

    def _write(self, texts: PairTexts, pages: Ints) -> None:
        new = self._not_written(pages)
        if len(new):
            self._insert(texts, new)
            self._is_written[new] = True

    def _not_written(self, pages: Ints) -> Ints:
        if not len(pages):
            return pages
        if pages[-1] >= len(self._is_written):
            more = np.zeros(max(int(pages[-1]) + 1, 2 * len(self._is_written)), np.bool_)
            more[: len(self._is_written)] = self._is_written
            self._is_written = more
        return pages[~self._is_written[pages]]

    def _insert(self, texts: PairTexts, pages: Ints) -> None:
        may_exist = self._may_exist

        def insert(connection: Connection) -> None:
            nonlocal may_exist
            connection.execute(query("load.lazy_commit"))
            where = (connection, self._partition_no, self._first_page)
            new = missing_pages(*where, pages) if may_exist else pages
            may_exist = True  # a second attempt, as another program may have written some
            copy_pages(*where, texts, new)

        self._database.run(insert, self._timeout_s)
