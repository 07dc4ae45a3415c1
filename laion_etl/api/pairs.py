"""Reading the pairs of a file: `read_wat`, and `read_pairs` for files of another kind."""

from collections.abc import Iterator, Sequence
from os import PathLike, fspath

import pyarrow as pa

from laion_etl.api.funnel import Funnel
from laion_etl.core.numba_cache import ensure_compiled
from laion_etl.crawl import patient_if_busy
from laion_etl.parse.custom_filters import LinkFilter
from laion_etl.parse.file_counts import FileCounts
from laion_etl.parse.link_source import LinkSource, WatSource
from laion_etl.parse.wat_workers import FileParser
from laion_etl.settings import Settings, load_settings


class PairReader(Iterator[pa.Table]):
    """The pairs of a file as tables of PAIR_SCHEMA, in the order of the links in the file.

    `funnel` counts the image links and `records` the records of the file, both as far as it is read: they are
    complete once the iteration has ended.
    """

    def __init__(self, parser: FileParser, uri: str) -> None:
        self._counts = FileCounts()
        self._tables = parser.pairs(0, uri, self._counts)

    def __next__(self) -> pa.Table:
        return next(self._tables)

    @property
    def funnel(self) -> Funnel:
        """What became of the image links read so far."""
        return Funnel(self._counts.input, self._counts.links.kept, self._counts.dropped)

    @property
    def records(self) -> Funnel:
        """What became of the records read so far; pages are kept."""
        records = self._counts.records
        return Funnel(records.input, records.kept, records.dropped)


def read_wat(
    uri: str | PathLike[str], settings: Settings | None = None, filters: Sequence[LinkFilter] = ()
) -> PairReader:
    """Return the pairs of a WAT file: a path, or a URL with s3://, https:// or file://.

    They are parsed while they are iterated over, some megabytes at a time, by the rules of the settings
    (blocklists included) and then by `filters`. Duplicates within the file are dropped. A damaged record is
    only counted.

    Args:
        uri: The file.
        settings: Those to use; without them those of the environment and of laion_etl.toml.
        filters: Custom filters, after those of the settings, in this order.

    Raises:
        SettingsError: A filter or another part that the settings name cannot be used.
        InputError: While iterating: the file cannot be read.
    """
    settings = settings or load_settings()
    return read_pairs(uri, WatSource(settings.parse, patient_if_busy(settings)), settings, filters)


def read_pairs(
    uri: str | PathLike[str],
    source: LinkSource,
    settings: Settings | None = None,
    filters: Sequence[LinkFilter] = (),
) -> PairReader:
    """Return the pairs of a file that `source` reads; everything else is as in `read_wat`.

    Args:
        uri: The file, as the source takes it.
        source: What yields the links of the file.
        settings: Those to use; without them those of the environment and of laion_etl.toml.
        filters: Custom filters, after those of the settings, in this order.

    Raises:
        SettingsError: A part cannot be used, or the source yields anything but pages.
    """
    parser = FileParser(settings or load_settings(), filters=filters, source=source)
    ensure_compiled()
    return PairReader(parser, fspath(uri))
