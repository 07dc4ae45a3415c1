"""Records of what a divided removal has found in files of pairs: `removing/<id>/found/<crawl>/<unit>.json`.

Each has the pairs of a file and the lines of the list (requested_lines.py) that match them, and is written
before the file is rewritten: then nothing else in the store names these pairs any more. By the records they
are emptied in Postgres and excluded later. So the record of a finished range names those of its files, and
one that is missing is an error.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import pyarrow as pa

from laion_etl.blocklists.removal_requests import Found
from laion_etl.core.errors import InputError, MissingFileError
from laion_etl.core.formats import check_format
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.dataset.locator.units import unit_of
from laion_etl.io.storage import Store
from laion_etl.removal.line_matcher import LineMatcher
from laion_etl.removal.requested_lines import read_line_rules

FORMAT = 1
_READERS = 16
_RESTORE = "restore it: without it its pairs keep their texts in Postgres"


class FoundPairs:
    """Records what a removal finds in files of pairs, one file at a time."""

    def __init__(self, request_id: str, pdq_distance: int, store: Store) -> None:
        self._request_id = request_id
        self._pdq_distance = pdq_distance
        self._store = store

    def write(self, name: str, found: Mapping[str, str], rows: pa.Table) -> None:
        """Record the pairs of a file, unless a killed attempt has: by now the file may lack some."""
        record = _record_name(self._request_id, name)
        if self._store.exists(record):
            return
        by_line = self._lines.pairs_of_lines(rows)
        lines = {line: sorted(pair.hex() for pair in pairs) for line, pairs in sorted(by_line.items())}
        document = {"format": FORMAT, "pairs": found, "lines": lines}
        self._store.write(record, json.dumps(document).encode() + b"\n")

    @cached_property
    def _lines(self) -> LineMatcher:
        """The list is only read when something matches: most ranges of a large one have nothing to count."""
        return LineMatcher(read_line_rules(self._request_id, self._store), self._pdq_distance)


def records_of(request_id: str, names: Iterable[str], store: Store) -> list[str]:
    """Return the records that some files of pairs have."""
    records = sorted({_record_name(request_id, name) for name in names})
    with ThreadPoolExecutor(_READERS) as pool:
        return [name for name, known in zip(records, pool.map(store.exists, records), strict=True) if known]


def found_pairs(request_id: str, store: Store) -> Iterator[Found]:
    """Yield what was found in each rewritten file of pairs.

    Raises InputError for a record that is missing or damaged.
    """
    names = store.list(f"{work_folder(request_id)}/found")
    if missing := sorted(_recorded(request_id, store) - {*names}):
        raise InputError(f"cannot read {store.uri(missing[0])}: it does not exist; {_RESTORE}")
    with ThreadPoolExecutor(_READERS) as pool:
        for name, data in zip(names, pool.map(store.read, names), strict=True):
            yield _found(name, data, store)


def work_folder(request_id: str) -> str:
    """Return the folder of what is recorded while a divided removal is not finished."""
    return f"removing/{request_id}"


def _recorded(request_id: str, store: Store) -> set[str]:
    """Return the records that finished ranges name."""
    folder = work_folder(request_id)
    names = [name for name in store.list(folder) if name.startswith(f"{folder}/range-")]
    with ThreadPoolExecutor(_READERS) as pool:
        return {one for found in pool.map(lambda name: _named(name, store), names) for one in found}


def _named(name: str, store: Store) -> list[str]:
    """Return the records that a finished range names; none if its own is damaged: it has to be run again."""
    try:
        # A version before this check may have written it.
        return [*map(str, parse_json(store.read(name)).get("found", ()))]
    except (MissingFileError, *NOT_AS_EXPECTED):
        return []


def _found(name: str, data: bytes, store: Store) -> Found:
    try:
        document = parse_json(data)
        check_format(store.uri(name), document.get("format"), FORMAT)
        # A version before lines were counted may have written it.
        return Found(name.split("/")[3], dict(document["pairs"]), dict(document.get("lines", {})))
    except NOT_AS_EXPECTED as error:
        raise InputError(
            f"cannot read {store.uri(name)}: it does not have the pairs of a file ({error}); {_RESTORE}"
        ) from error


def _record_name(request_id: str, name: str) -> str:
    return f"{work_folder(request_id)}/found/{name.split('/')[1]}/{unit_of(name)}.json"
