"""The files of a crawl that removal requests have to read: those that the locator finds, and those that it
does not cover. A crawl without a usable locator is read as a whole; the log says so."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from laion_etl.core.errors import DamagedFileError, MissingFileError
from laion_etl.dataset.locator.build import read_segments
from laion_etl.dataset.locator.keys import WantedKeys
from laion_etl.dataset.locator.segment_reader import Segment, find_units, read_files
from laion_etl.dataset.locator.units import all_files, cover
from laion_etl.io.storage import Store

_SEGMENTS_AT_ONCE = 12
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Names of files to read: `found` by the locator, and `uncovered`, of which it knows nothing."""

    found: frozenset[str]
    uncovered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Answer:
    covers: tuple[int, ...]  # of all files of a segment
    found: dict[int, str]  # of those that may hold something, by cover


def find_files(crawl: str, wanted: WantedKeys, store: Store) -> Candidates:
    """Return the files of a crawl that have to be read for what is wanted."""
    segments = read_segments(crawl, store)
    found: dict[int, str] = {}
    covered: set[int] = set()
    for answer in _answers(segments, wanted, store):
        covered.update(answer.covers)
        found |= answer.found
    here, uncovered, count = set(), set(), 0
    for name, tag in all_files(crawl, store):
        count += 1
        number = cover(name, tag)
        if number in found:
            here.add(name)
        elif number not in covered:
            uncovered.add(name)
    _report(crawl, len(segments), count, len(here), len(uncovered))
    return Candidates(frozenset(here), frozenset(uncovered))


def find_more(crawl: str, wanted: WantedKeys, store: Store) -> frozenset[str]:
    """Return the files that the locator of a crawl finds and that still exist, covered or not."""
    found = {
        name
        for answer in _answers(read_segments(crawl, store), wanted, store)
        for name in answer.found.values()
    }
    return frozenset(name for name in found if store.exists(name))


def _answers(segments: list[Segment], wanted: WantedKeys, store: Store) -> Iterator[_Answer]:
    with ThreadPoolExecutor(_SEGMENTS_AT_ONCE) as pool:
        yield from pool.map(lambda segment: _answer(segment, wanted, store), segments)


def _answer(segment: Segment, wanted: WantedKeys, store: Store) -> _Answer:
    """Look up one segment; one that is damaged covers nothing."""
    try:
        units = find_units(segment, wanted, store)
        table = read_files(segment, store)
    except (DamagedFileError, MissingFileError) as error:
        _log.warning("%s", error)
        return _Answer((), {})
    names, tags = table["name"].to_pylist(), table["tag"].to_pylist()
    covers = tuple(cover(name, tag) for name, tag in zip(names, tags, strict=True))
    rows = np.flatnonzero(np.isin(table["unit"].to_numpy(), units)).tolist()
    return _Answer(covers, {covers[row]: names[row] for row in rows})


def _report(crawl: str, segments: int, files: int, found: int, uncovered: int) -> None:
    _log.info(
        "%s: of %d files %d may hold something by the locator, and %d have to be read because it does not "
        "cover them", crawl, files, found, uncovered,
    )  # fmt: skip
    if uncovered and uncovered == files:
        _log.warning(
            "%s has no usable locator: all its %d files are read; `laion-etl dataset locate --crawl %s` "
            "writes one", crawl, files, crawl,
        )  # fmt: skip
    elif uncovered and segments:
        _log.warning(
            "%d of %d files of %s have changed since it was located, and are read; `laion-etl dataset locate "
            "--crawl %s` covers them", uncovered, files, crawl, crawl,
        )  # fmt: skip
