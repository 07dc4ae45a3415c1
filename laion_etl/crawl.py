"""Crawls, the WAT files of each, and the partitions that tasks work on.

A crawl is named by the week in which it was fetched: CC-MAIN-2026-21. Its WAT files are listed, one path per
line, in crawl-data/<id>/wat.paths.gz; partition N is the N-th group of `wat_files_per_partition` lines,
whatever part of the crawl is selected, so that numbers mean the same in every run.
"""

import difflib
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from importlib import resources

from laion_etl.core.errors import CrawlError, InputError, LaionEtlError, MissingInputError, SettingsError
from laion_etl.core.import_factory import is_factory, load_factory
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.quantities import quantity
from laion_etl.io.remote_files import read_input
from laion_etl.io.request_limiter import RequestLimiter
from laion_etl.io.retries import DEFAULT_POLICY, RetryPolicy
from laion_etl.io.storage import LocalStore
from laion_etl.io.warc_folder import warc_files_in
from laion_etl.settings import Settings

_CRAWL_ID = re.compile(r"CC-MAIN-([0-9]{4})-([0-9]{2})")
_WAT_PATH = re.compile(r"crawl-data/(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)+[A-Za-z0-9_-][A-Za-z0-9_.-]*\.gz")
_NUMBERS = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_MAX_NUMBERS = 1_000_000
_SELECTION = re.compile(r"([0-9]{0,9})(:?)([0-9]{0,9})")  # longer indexes than any list has are a mistake

# wat.paths.gz of a crawl: 0.2 MB packed, 14 MB unpacked (100,000 lines). Anything much larger is not a path
# list.
_MAX_LIST_BYTES = 16 * 1024 * 1024
_MAX_UNPACKED_LIST_BYTES = 256 * 1024 * 1024
_MAX_COLLINFO_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Crawl:
    """A crawl. `released` is derived: the Monday of the ISO week in the id (publication is weeks later)."""

    id: str
    name: str
    released: date


@dataclass(frozen=True, slots=True)
class Partition:
    """WAT files for one task: URIs of every `step`-th line of wat.paths, from index `first_wat` on."""

    crawl: str
    number: int
    first_wat: int
    wat_files: tuple[str, ...]
    step: int = 1

    @property
    def indexed_wat_files(self) -> list[tuple[int, str]]:
        """(index in wat.paths, URI) of each file."""
        return [(self.first_wat + i * self.step, uri) for i, uri in enumerate(self.wat_files)]


def shipped_catalogue() -> list[Crawl]:
    """Returns the crawls known when this version was made (laion_etl/catalogue.json), newest first."""
    text = resources.files("laion_etl").joinpath("catalogue.json").read_text()
    return _catalogue(text, "the shipped catalogue")


def known_crawls(settings: Settings) -> list[Crawl]:
    """Returns the crawls of the catalogue file and the registered ones, newest first.

    The file is LAION_ETL_CATALOGUE, else the shipped one. Reads local files only: DAG files call this every
    time they are parsed.
    """
    path = settings.core.catalogue
    known = _read_catalogue(path) if path else shipped_catalogue()
    if settings.registered_path.is_file():
        known += _read_catalogue(str(settings.registered_path))
    return _newest_first(list({crawl.id: crawl for crawl in reversed(known)}.values()))


def register_crawls(found: list[Crawl], settings: Settings) -> list[Crawl]:
    """Saves crawls so that they are known from now on, also to this machine's DAGs; returns the new ones."""
    known = {crawl.id for crawl in known_crawls(settings)}
    new = [crawl for crawl in found if crawl.id not in known]
    path = settings.registered_path
    registered = _read_catalogue(str(path)) if path.is_file() else []
    listed = [
        {"id": crawl.id, "name": crawl.name, "released": crawl.released.isoformat()}
        for crawl in _newest_first([*registered, *new])
    ]
    store = LocalStore(path.parent)
    store.write(path.name, json.dumps({"crawls": listed}, indent=1).encode() + b"\n")
    return new


def _read_catalogue(path: str) -> list[Crawl]:
    return _catalogue(read_input(path, _MAX_COLLINFO_BYTES).decode(errors="replace"), path)


def discover_crawls(settings: Settings) -> list[Crawl]:
    """Returns the crawls that Common Crawl's index lists now (collinfo.json), newest first.

    Those with other names (CC-MAIN-2012 and older) have no WAT files and are left out.
    """
    uri = settings.collinfo_uri
    try:
        entries = parse_json(read_input(uri, _MAX_COLLINFO_BYTES))
        named = {str(entry["id"]): str(entry.get("name", entry["id"])) for entry in entries}
    except NOT_AS_EXPECTED as error:
        raise CrawlError(
            f"cannot read {uri}: not a list of crawls ({error!r}); check LAION_ETL_COLLINFO"
        ) from error
    return _newest_first([Crawl(i, name, released(i)) for i, name in named.items() if _CRAWL_ID.fullmatch(i)])


def released(crawl_id: str) -> date:
    """Returns the Monday of the ISO week that a crawl id names; raises CrawlError for anything else."""
    if found := _CRAWL_ID.fullmatch(crawl_id):
        try:
            return date.fromisocalendar(int(found[1]), int(found[2]), 1)
        except ValueError as error:
            raise CrawlError(f"invalid crawl id {crawl_id!r}: {error}; see `laion-etl crawl list`") from error
    raise CrawlError(f"invalid crawl id {crawl_id!r}; expected CC-MAIN-YYYY-WW (see `laion-etl crawl list`)")


def file_policy(settings: Settings) -> RetryPolicy:
    """Returns how requests for files of the crawl source are spaced out and repeated."""
    limiter = RequestLimiter(settings.data_path / "crawl-source.lock", settings.core.crawl_requests_per_s)
    retry_s = settings.core.crawl_retry_s
    return RetryPolicy(max_s=retry_s, unreachable_s=retry_s, limiter=limiter)


def patient_if_busy(settings: Settings) -> RetryPolicy:
    """Returns the policy for a single file whose address may be wrong.

    A busy server is asked for as long as `file_policy` says, but one that cannot be reached is given up soon.
    The request does not count among those of the machine: a command that only lists needs no data folder.
    """
    return replace(DEFAULT_POLICY, max_s=settings.core.crawl_retry_s)


def wat_paths(crawl_id: str, settings: Settings, kind: str = "wat") -> list[str]:
    """Returns the full URIs of all WAT files of a crawl (or `warc` files), in the order of its wat.paths.gz.

    Raises CrawlError for an unknown crawl or a list that cannot be read. A busy server is asked again for as
    long as for a WAT file; one that cannot be reached is not, because its address may be wrong.
    """
    released(crawl_id)  # before the id goes into a path
    source = settings.core.crawl_source.rstrip("/")
    uri = f"{source}/crawl-data/{crawl_id}/{kind}.paths.gz"
    try:
        packed = read_input(uri, _MAX_LIST_BYTES, patient_if_busy(settings))
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as unpacked:
            text = unpacked.read(_MAX_UNPACKED_LIST_BYTES + 1)
    except MissingInputError as error:
        raise CrawlError(_unknown(crawl_id, source, settings)) from error
    except InputError as error:
        raise CrawlError(f"cannot list the {kind.upper()} files of {crawl_id}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise CrawlError(f"cannot read {uri}: it is damaged ({error}); fetch it again") from error
    if len(text) > _MAX_UNPACKED_LIST_BYTES:
        raise CrawlError(
            f"cannot read {uri}: it unpacks to more than {quantity(_MAX_UNPACKED_LIST_BYTES, 'byte')}, so it "
            "is not a list of WAT files; check LAION_ETL_CRAWL_SOURCE"
        )
    lines = [path for path in text.decode("utf-8-sig", "replace").splitlines() if path.strip()]
    if not lines:
        raise CrawlError(
            f"cannot work on {crawl_id}: {uri} lists no {kind.upper()} files; the crawl may not be complete "
            "yet, or LAION_ETL_CRAWL_SOURCE has only a part of it"
        )
    return [f"{source}/{_checked(path, uri)}" for path in lines]


def input_files(crawl_id: str, settings: Settings) -> list[str]:
    """Returns the URIs of the files that parse reads, in the order that numbers them.

    They are those that `files` of a custom source (LAION_ETL_PARSE_SOURCE) names, else the crawl's WAT files;
    for the source `warc` those in the folder of the crawl's name, else the crawl's WARC files. Raises
    CrawlError where there are none, SettingsError for a source that cannot be used.
    """
    name, variable = settings.parse.source, "LAION_ETL_PARSE_SOURCE"
    if not is_factory(name):
        own = warc_files_in(settings.core.crawl_source, crawl_id) if name == "warc" else None
        return own or wat_paths(crawl_id, settings, name)
    source = load_factory(name, variable, "wat")(settings.parse)
    if not hasattr(source, "files"):
        return wat_paths(crawl_id, settings)
    found = list(source.files(crawl_id, settings.core.crawl_source.rstrip("/")))
    if not found or not all(isinstance(uri, str) and uri for uri in found):
        raise CrawlError(
            f"cannot list the files of {crawl_id}: `files` of {variable}={name} returns {found[:3]}; it must "
            "return their URIs, and find them in LAION_ETL_CRAWL_SOURCE"
        )
    return found


def partitions(crawl_id: str, settings: Settings, selection: slice | None = None) -> list[Partition]:
    """Returns the partitions of a crawl; those without a selected WAT file are left out.

    With a sample (LAION_ETL_WAT_FILES_SAMPLE) they have the same numbers, and fewer files each.
    """
    size, step = settings.core.wat_files_per_partition, settings.core.wat_files_sample
    paths = input_files(crawl_id, settings)
    start, stop, _ = (selection or slice(None)).indices(len(paths))
    found = []
    for number in range(start // size, -(-stop // size)):
        first, last = max(start, number * size), min(stop, (number + 1) * size)
        first = -(-first // step) * step
        if first < last:
            found.append(Partition(crawl_id, number, first, tuple(paths[first:last:step]), step))
    return found


def parse_selection(text: str) -> slice:
    """`0:2`, `:2`, `10:` or a single index `5` as a slice of wat.paths; raises SettingsError."""
    found = _SELECTION.fullmatch(text.strip())
    if found is None or not (found[1] or found[3]):
        raise SettingsError(
            f"cannot select WAT files by --wat-files {text[:40]!r}: it is not a range; write first:end, for "
            "example 0:2 for the first two, or a single number"
        )
    if not found[2]:
        return slice(int(found[1]), int(found[1]) + 1)
    selection = slice(int(found[1] or 0), int(found[3]) if found[3] else None)
    if selection.stop is not None and selection.stop <= selection.start:
        raise SettingsError(
            f"cannot select WAT files by --wat-files {text!r}: the range is empty; "
            "its end must be above its start"
        )
    return selection


def written_numbers(numbers: Iterable[int]) -> str:
    """`0-2,5` for 0, 1, 2 and 5."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def read_numbers(text: str) -> list[int]:
    """The numbers of `0-2,5`, ascending; raises SettingsError."""
    found: set[int] = set()
    for part in text.split(","):
        match = _NUMBERS.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) - int(match[1]) not in range(_MAX_NUMBERS):
            raise SettingsError(f"invalid number list {text!r}; expected for example 0-2,5")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found)


def _catalogue(text: str, place: str) -> list[Crawl]:
    try:
        found = [
            Crawl(str(entry["id"]), str(entry["name"]), date.fromisoformat(entry["released"]))
            for entry in parse_json(text)["crawls"]
        ]
    except NOT_AS_EXPECTED as error:
        raise CrawlError(
            f"cannot read {place}: not a catalogue of crawls ({error!r}); see docs/configuration.md"
        ) from error
    for crawl in found:
        released(crawl.id)
    return _newest_first(found)


def _newest_first(crawls: list[Crawl]) -> list[Crawl]:
    return sorted(crawls, key=lambda crawl: (crawl.released, crawl.id), reverse=True)


def _checked(path: str, uri: str) -> str:
    path = path.strip()
    if not _WAT_PATH.fullmatch(path):
        raise CrawlError(
            f"cannot use {uri}: {path[:200]!r} in it is not a path of a WAT file; fetch the list again"
        )
    return path


def _unknown(crawl_id: str, source: str, settings: Settings) -> str:
    try:
        known = [crawl.id for crawl in known_crawls(settings)]
    except LaionEtlError:
        known = []
    close = difflib.get_close_matches(crawl_id, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close and crawl_id not in close else ""
    return (
        f"cannot find crawl {crawl_id}: {source} does not have it; {hint}`laion-etl crawl list` lists the "
        "known ones, LAION_ETL_CRAWL_SOURCE says where they are"
    )
