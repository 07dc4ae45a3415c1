"""Searches the store for what a request names, in the files that the locators of its crawls point to.

The rules are looked up first and the files read: only that tells which pairs match. Pairs that were found by
their image are then looked up by their ids, because files without image hashes have them, too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from laion_etl.blocklists.removal_requests import Found, Matcher, Request
from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.dataset.locator.keys import wanted_keys, wanted_pairs
from laion_etl.dataset.locator.lookup import find_files, find_more
from laion_etl.dataset.locator.units import located_crawls, published_datasets
from laion_etl.dataset.manifest import current_manifest
from laion_etl.dataset.rewrite import read_table
from laion_etl.dataset.row_streams import read_rows
from laion_etl.dataset.subsets import DataFile, published_pair_ids
from laion_etl.io.storage import Store
from laion_etl.removal.line_counts import LineCounts
from laion_etl.settings import Settings

# alt: caption of older files
_COLUMNS = ["pair_id", "url", "caption", "alt", "md5", "sha256", "pdq", "pdq_quality"]
_ORDER = ("shards", "scored", "pairs", "batches")  # images first, whose pairs are then found everywhere
_IMAGE_RULES = ("md5", "sha256", "pdq")
_UNREADABLE = (InputError, MissingFileError, DamagedFileError)  # of one file; the store itself answers
_READERS = 4
_CRAWLS_AT_ONCE = 2

Progress = Callable[[int, int], None]


class Failures:
    """What could not be read, each message once."""

    def __init__(self, messages: Iterable[str] = ()) -> None:
        self.messages: dict[str, None] = dict.fromkeys(messages)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Let the caller go on with the next file when this one cannot be read."""
        try:
            yield
        except _UNREADABLE as error:
            self.messages[str(error)] = None


@dataclass(frozen=True, slots=True)
class Findings:
    """The request with all matching pairs and their crawls, and the files that may have to be rewritten."""

    request: Request
    names: tuple[str, ...]


class Search:
    """One search; the request and the files to rewrite grow while files are read.

    Files of pairs are the largest. Without `with_pairs` they are only named: who rewrites them finds their
    pairs. No other file is found by these, which have no images. `lines`: requests of one line of the list
    each, whose pairs are counted.
    """

    def __init__(
        self,
        request: Request,
        settings: Settings,
        store: Store,
        failures: Failures,
        on_file: Progress | None = None,
        *,
        with_pairs: bool = True,
        lines: Iterable[Request] = (),
    ) -> None:
        self._with_pairs = with_pairs
        self._request = request
        self._settings = settings
        self._store = store
        self._failures = failures
        self._on_file = on_file
        self._matcher = Matcher([request], settings.download.pdq_distance)
        self._lines = LineCounts(lines, settings.download.pdq_distance)
        self._findings: list[Found] = []
        self._rewrite: set[str] = set()
        self._by_image: set[str] = set()

    def run(self) -> Findings:
        """Search all crawls; the files of all are read in one order, whichever crawl they belong to."""
        known = wanted_pairs(sorted(self._request.pair_ids))
        wanted = wanted_keys([self._request], self._settings.download.pdq_distance).joined(known)
        crawls = located_crawls(self._store)
        found: set[str] = set()
        uncovered: set[str] = set()
        with ThreadPoolExecutor(_CRAWLS_AT_ONCE) as pool:
            for candidates in pool.map(lambda crawl: find_files(crawl, wanted, self._store), crawls):
                found |= candidates.found
                uncovered |= candidates.uncovered
        self._read(found | uncovered)
        others: set[str] = set()
        if self._by_image:
            pairs = wanted_pairs(sorted(self._by_image))
            for crawl in crawls:
                others |= find_more(crawl, pairs, self._store)
            self._read(others - found - uncovered)
        pairs_files = {name for name in found if name.startswith("pairs/") and not self._with_pairs}
        names = self._rewrite | others | uncovered | pairs_files
        request = self._lines.with_counts(self._request).with_pairs(self._findings)
        return Findings(request, tuple(sorted(name for name in names if not name.startswith("dataset/"))))

    @property
    def _folders(self) -> tuple[str, ...]:
        return tuple(folder for folder in _ORDER if self._with_pairs or folder != "pairs")

    def _read(self, names: set[str]) -> None:
        """Read files in the order of `_ORDER` and by name, and published ones after all others."""
        stored = sorted(
            (name for name in names if name.partition("/")[0] in self._folders),
            key=lambda name: (_ORDER.index(name.partition("/")[0]), name),
        )
        with ThreadPoolExecutor(_READERS) as pool:
            for number, (name, table) in enumerate(_ahead(stored, pool, self._store), 1):
                with self._failures.collected():
                    if self._add(table.result(), name.split("/")[1]):
                        self._rewrite.add(name)
                if self._on_file is not None:
                    self._on_file(number, len(stored))
        self._read_published({name for name in names if name.startswith("dataset/")})

    def _read_published(self, names: set[str]) -> None:
        """Add matching published rows: all other files of a crawl may be gone."""
        for dataset in published_datasets(self._store) if names else ():
            with self._failures.collected():
                manifest = current_manifest(dataset, self._store)
                for file in manifest.files if manifest else ():
                    if file.name in names:
                        self._read_published_file(file)

    def _read_published_file(self, file: DataFile) -> None:
        for rows in read_rows([file], self._store):
            ids = pa.array([bytes.fromhex(one) for one in published_pair_ids(rows)], pa.binary(16))
            pairs = pa.table({"pair_id": ids, "url": rows["URL"], "caption": rows["TEXT"]})
            found, matched = self._matcher.match_pairs(pairs)
            if found:
                new = self._matcher.add_found(found)  # nearly all are stored, too
                self._findings.append(Found(file.crawl, {pair: found[pair] for pair in new}, {}))
                self._lines.add(pairs.filter(pa.array(matched)))

    def _add(self, table: pa.Table, crawl: str) -> bool:
        """Add the matching pairs of a file; return whether there are any."""
        found, matched = self._matcher.match_pairs(table)
        if found:
            self._by_image |= {pair for pair, rule in found.items() if rule in _IMAGE_RULES}
            self._findings.append(Found(crawl, found, {}))
            self._lines.add(table.filter(pa.array(matched)))
            self._matcher.add_found(found)
        return bool(found)


def _ahead(
    names: Sequence[str], pool: ThreadPoolExecutor, store: Store
) -> Iterator[tuple[str, "Future[pa.Table]"]]:
    """Yield files in order while the next ones are read."""
    waiting = iter(names)
    begun = [(name, pool.submit(read_table, name, store, _COLUMNS)) for name in islice(waiting, _READERS)]
    while begun:
        yield begun.pop(0)
        begun += [(name, pool.submit(read_table, name, store, _COLUMNS)) for name in islice(waiting, 1)]
