"""Targets for files of the store and of users: whatever is in one, its reader answers, or raises an error
that the command line prints without a traceback."""

import gzip
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from laion_etl.blocklists.image_hashes import HashBlocklist
from laion_etl.blocklists.removal_requests import blocked_links, read_requests
from laion_etl.blocklists.syntax import ListKind, TextReader, get_hasher
from laion_etl.core.errors import InputError, LaionEtlError
from laion_etl.crawl import discover_crawls, known_crawls, wat_paths
from laion_etl.dashboard.failures import TroubleCache, causes
from laion_etl.database.dedupe_keys import DedupeRule
from laion_etl.database.pairs_file import PairsFile
from laion_etl.dataset.evaluation_sets import read_embeddings, read_set
from laion_etl.dataset.locator.build import read_segments
from laion_etl.dataset.manifest import parse_manifest
from laion_etl.dataset.score_progress import groups_file, read_score_progress
from laion_etl.dataset.versions import Release, read_versions
from laion_etl.evaluate.label_file import read_rows
from laion_etl.io.planned import read_window
from laion_etl.io.storage import LocalStore, Store
from laion_etl.io.usage_records import UsageReader
from laion_etl.parse.checkpoints import Checkpoints
from laion_etl.publish.prepared import read_prepared
from laion_etl.publish.verify_ranges import merge_reports, read_reports
from laion_etl.removal.found_pairs import found_pairs
from laion_etl.removal.receipts import check_receipt
from laion_etl.removal.republish import read_publications
from laion_etl.removal.requested_lines import read_line_rules, read_lines_of
from laion_etl.removal.work import Work, failures_of, read_work
from laion_etl.score.safety import load_prompts
from laion_etl.settings import CoreSettings, Settings

Reader = Callable[[Store], object]


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """The folder of this process, which is gone when it ends."""
    return tempfile.TemporaryDirectory(prefix="laion_etl-fuzz-")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Many a reader reports what it leaves out."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _read(reader: str, readers: Mapping[str, tuple[str, Reader]], data: bytes) -> None:
    """Put data where a reader looks for it, in a store of its own, and read it."""
    name, read = readers[reader]
    folder = Path(_temporary().name, reader)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with _without_warnings(), suppress(LaionEtlError):
        read(LocalStore(folder))


def _read_any(readers: Mapping[str, tuple[str, Reader]], data: bytes) -> None:
    """Read with the reader that the first line names; without a name of one with each."""
    named, _, content = data.partition(b"\n")
    if (reader := named.decode("latin-1")) in readers:
        _read(reader, readers, content)
        return
    for reader in readers:
        _read(reader, readers, data)


def documents(data: bytes) -> None:
    """The name of a reader, a newline, a JSON file of the store."""
    _read_any(_DOCUMENTS, data)


def tables(data: bytes) -> None:
    """The name of a reader, a newline, a parquet file."""
    _read_any(_TABLES, data)


def lists(data: bytes) -> None:
    """The name of a reader, a newline, a file that users give."""
    _read_any(_LISTS, data)


def _checkpoint(store: Store) -> None:
    found = Checkpoints(store, "c", "part-0", lambda *_: "f").load(0, "uri")
    if found is not None:
        counts = found[1]
        for outcomes in (counts.records, counts.links):
            assert outcomes.kept + sum(outcomes.dropped.values()) == outcomes.input


def _manifest(store: Store) -> None:
    manifest = parse_manifest(Release("laion", "1"), store.read("manifest.json"), "manifest.json")
    assert manifest.schema_number > 0
    assert all(isinstance(name, str) for name in (*manifest.columns, *manifest.subsets))
    assert sum(part.rows for part in manifest.parts) >= 0


def _removal_lines(store: Store) -> None:
    with suppress(InputError):
        read_lines_of("x", store)
    read_line_rules("x", store)


def _score_progress(store: Store) -> None:
    store.write(groups_file("c"), b'{"format": 1, "groups": 1}')
    read_score_progress("c", store)


def _reports(store: Store) -> None:
    merge_reports(read_reports(store), store)


_WORK = Work("x", (("pairs/c/part-0.parquet",),))
_DOCUMENTS: Mapping[str, tuple[str, Reader]] = {
    "checkpoint": ("checkpoints/c/part-0/000000-f.json", _checkpoint),
    "versions": ("dataset/laion/versions.json", lambda store: read_versions("laion", store)),
    "manifest": ("manifest.json", _manifest),
    "window": ("window.json", lambda store: read_window("window.json", store)),
    "request": ("removals/x.json", lambda store: blocked_links(read_requests(store))),
    "lines": ("removing/x/lines.json", _removal_lines),
    "found": ("removing/x/found/c/part-0.json", lambda store: list(found_pairs("x", store))),
    "range": ("removing/x/range-0001-of-0001.json", lambda store: failures_of(_WORK, 1, store)),
    "publications": ("removing/x/publish.json", lambda store: read_publications("x", store)),
    "prepared": ("publish/laion/c/prepared.json", lambda store: read_prepared("laion", "c", store)),
    "report": ("range-1.json", _reports),
    "groups": (groups_file("c"), lambda store: read_score_progress("c", store)),
    "group": ("score/c/group-0-of-1.json", _score_progress),
    "segment": ("locator/c/a.json", lambda store: read_segments("c", store)),
    "usage": ("usage/c/a.json", lambda store: UsageReader("c").records(store)),
    "alert": ("unresolved/c/run/a.failed.json", lambda store: causes(TroubleCache("c").troubles(store))),
    "receipt": ("r.json", lambda store: check_receipt(store.read("r.json"), "r.json")),
    "prompts": ("p.json", lambda store: load_prompts(Path(store.uri("p.json")))),
}


def _pairs(store: Store) -> None:
    for rule in DedupeRule:
        file = PairsFile(store, "p.parquet", rule)
        with file.texts(file.candidates()):
            pass


_TABLES: Mapping[str, tuple[str, Reader]] = {
    "pairs": ("p.parquet", _pairs),
    "work": ("removing/x/files.parquet", lambda store: read_work("x", store)),
    "set": ("evaluation/s.parquet", lambda store: read_set("s", store)),
    "embeddings": ("e.parquet", lambda store: read_embeddings(Path(store.uri("e.parquet")), "embedding")),
    "vectors": ("e.npy", lambda store: read_embeddings(Path(store.uri("e.npy")), "")),
}


def _crawls(store: Store) -> None:
    for crawl in known_crawls(_settings(store)):
        assert not set("/\n") & set(crawl.id)


def _listed_crawls(store: Store) -> None:
    for crawl in discover_crawls(_settings(store)):
        assert crawl.id.isascii()


def _settings(store: Store) -> Settings:
    place = store.uri().rstrip("/")
    return Settings(
        core=CoreSettings(
            crawl_source=place, catalogue=f"{place}/crawls.json", collinfo=f"{place}/collinfo.json"
        )
    )


def _paths(store: Store) -> None:
    packed = "crawl-data/CC-MAIN-2026-21/wat.paths.gz"
    path = Path(store.uri(packed))
    if not (data := path.read_bytes()).startswith(b"\x1f\x8b"):
        path.write_bytes(gzip.compress(data, 1))
    for uri in wat_paths("CC-MAIN-2026-21", _settings(store)):
        assert "/../" not in uri
        assert uri.isprintable()


def _entries(kind: ListKind) -> Reader:
    """Reads a list of links as a whole, which has the hashes of its lines, each read alone."""

    def read(store: Store) -> None:
        data, hashed = store.read("list.txt"), get_hasher(kind)
        found = {one for lines in _blocks(data) for one in hashed(lines).tolist()}
        if kind is not ListKind.URLS:  # of which a host is hashed once for several lines
            alone = [one for line in data.split(b"\n") for lines in _blocks(line) for one in hashed(lines)]
            assert data[:2] == b"\x1f\x8b" or found == {*map(int, alone)}

    return read


def _blocks(data: bytes) -> list:  # type: ignore[type-arg]
    return list(TextReader(io.BufferedReader(io.BytesIO(data)), "list.txt").blocks())


_LISTS: Mapping[str, tuple[str, Reader]] = {
    "crawls": ("crawls.json", _crawls),
    "collinfo": ("collinfo.json", _listed_crawls),
    "paths": ("crawl-data/CC-MAIN-2026-21/wat.paths.gz", _paths),
    "labels": ("l.csv", lambda store: read_rows(Path(store.uri("l.csv")), ("key", "label"))),
    "hashes": ("h.txt", lambda store: HashBlocklist.load(store.uri("h.txt"))),
    **{kind.value: ("list.txt", _entries(kind)) for kind in ListKind if kind is not ListKind.PATTERNS},
}

STORED: tuple[Callable[[bytes], None], ...] = (documents, tables, lists)
