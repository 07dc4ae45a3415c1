"""Finished WAT files of a partition that is not finished: a retry starts where the last attempt stopped.

A partition has a hundred files, and each may be fetched for minutes from a server that throttles. Checkpoints
are in the store, not in the local data folder: a retry may run in another pod, and losing the pod is the
usual reason for one. They cost a copy of the pairs (about a tenth of the WAT file) until the partition is
done, and an upload for each file; a partition of one file has none.

A checkpoint is a stream of Arrow tables and, written last, a JSON file of its counts and of the stream's size
and SHA-256: a stream that is cut off between two tables looks complete. Its name has the fingerprint of the
file, so one made with other settings is not used. What cannot be used is only parsed again. The pairs of a
file do not depend on other files, and the row groups of a partition not on the tables that they come in, so a
partition that was interrupted has the same bytes as one that was not.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from laion_etl.core.errors import DamagedFileError, InputError, MissingFileError
from laion_etl.core.formats import check_format
from laion_etl.core.funnel import Outcomes, ParseReason, ReasonT, RecordReason
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.schemas import PAIR_SCHEMA
from laion_etl.core.stage_stats import Output
from laion_etl.io.outputs import is_output
from laion_etl.io.storage import Store
from laion_etl.parse.file_counts import FileCounts, SourceCounts
from laion_etl.parse.internal_errors import InternalErrors

FORMAT = 2  # 1 has pairs without the source of their captions: such a file is parsed again
STREAM = pa.ipc.IpcWriteOptions(compression="lz4")

_COPY_BYTES = 1 << 20
_UNUSABLE = (MissingFileError, DamagedFileError, InputError)  # InputError: of a newer laion-etl

_log = logging.getLogger(__name__)

Saved = tuple[Iterator[pa.Table], FileCounts]


class Checkpoints:
    """The finished WAT files of one partition."""

    def __init__(self, store: Store, crawl: str, unit: str, identity: Callable[[int, str], str]) -> None:
        """`identity` returns the fingerprint of a file, given its number in wat.paths and its URI."""
        self._store = store
        self._folder = _folder(crawl, unit)
        self._identity = identity
        self._known = set(store.list(self._folder))

    def load(self, wat_file: int, uri: str) -> Saved | None:
        """Returns the tables and the counts of a finished file; None if it is to be parsed."""
        name = self._name(wat_file, uri)
        if f"{name}.json" not in self._known:
            return None
        try:
            plain = parse_json(self._store.read(f"{name}.json"))
            if check_format(self._store.uri(f"{name}.json"), plain["format"], FORMAT) < FORMAT:
                return None
            counts = _counts(plain)
            return tables_of(self._stream(Output(**plain["stream"]))), counts
        except (*_UNUSABLE, *NOT_AS_EXPECTED) as error:
            _log.warning("cannot use the checkpoint %s: %s; %s is parsed again", name, error, uri)
            return None

    def saving(
        self, wat_file: int, uri: str, tables: Iterator[pa.Table], counts: FileCounts
    ) -> Iterator[pa.Table]:
        """Yields the tables of a file while they are saved; its counts must be complete after the last."""
        name = self._name(wat_file, uri)
        with (
            self._store.create(f"{name}.arrows") as file,
            pa.ipc.new_stream(file, PAIR_SCHEMA, options=STREAM) as writer,
        ):
            for table in tables:
                writer.write_table(table)
                yield table
        self._finish(name, counts, file.output)

    def save(self, wat_file: int, uri: str, path: Path, counts: FileCounts) -> None:
        """Saves a finished file, whose stream of tables is in a local file."""
        name = self._name(wat_file, uri)
        with path.open("rb") as source, self._store.create(f"{name}.arrows") as file:
            while data := source.read(_COPY_BYTES):
                file.write(data)
        self._finish(name, counts, file.output)

    def _finish(self, name: str, counts: FileCounts, stream: Output) -> None:
        """Marks a file as finished, unless rules failed in it: then a retry may do better."""
        if not counts.errors.examples:
            plain = {**_plain(counts), "stream": asdict(stream)}
            self._store.write(f"{name}.json", json.dumps(plain, indent=1).encode() + b"\n")

    def _stream(self, expected: Output) -> BinaryIO:
        """Opens a stream. Raises DamagedFileError unless it is the one that was written."""
        file = self._store.open(expected.name)
        if not is_output(file, expected, self._store):
            file.close()
            raise DamagedFileError(f"{self._store.uri(expected.name)} is not the file that was written")
        return file

    def _name(self, wat_file: int, uri: str) -> str:
        return f"{self._folder}{wat_file:06}-{self._identity(wat_file, uri)}"


def delete_checkpoints(store: Store, crawl: str, unit: str) -> None:
    """Removes all checkpoints of a partition, also of other settings and of files that it had before."""
    for name in store.list(_folder(crawl, unit)):
        store.delete(name)


def _folder(crawl: str, unit: str) -> str:
    return f"checkpoints/{crawl}/{unit}/"


def tables_of(stream: BinaryIO | pa.NativeFile) -> Iterator[pa.Table]:
    """Yields the tables of a stream, and closes it."""
    with stream, pa.ipc.open_stream(stream) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _plain(counts: FileCounts) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "records": {"kept": counts.records.kept, "dropped": counts.records.dropped},
        "links": {"kept": counts.links.kept, "dropped": counts.links.dropped},
        "custom": dict(sorted(counts.custom.items())),
        "damaged": counts.damaged,
        "sources": {
            "is_counted": counts.sources.is_counted,
            "links": dict(sorted(counts.sources.links.items())),
            "kept": dict(sorted(counts.sources.kept.items())),
        },
    }


def _counts(plain: dict[str, Any]) -> FileCounts:
    sources = plain["sources"]
    return FileCounts(
        records=_outcomes(RecordReason, plain["records"]),
        links=_outcomes(ParseReason, plain["links"]),
        custom=Counter(plain["custom"]),
        damaged=plain["damaged"],
        errors=InternalErrors(),
        sources=SourceCounts(sources["is_counted"], Counter(sources["links"]), Counter(sources["kept"])),
    )


def _outcomes(reasons: type[ReasonT], plain: dict[str, Any]) -> Outcomes[ReasonT]:
    outcomes = Outcomes[ReasonT]()
    outcomes.keep(plain["kept"])
    for name, count in plain["dropped"].items():
        outcomes.drop(reasons(name), count)
    return outcomes
