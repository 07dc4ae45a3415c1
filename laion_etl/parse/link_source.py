"""Where links come from: WAT files, WARC files, or what a custom source reads.

One object for each parse process, made from the setting. A source decides how a file is read and nothing
else: its links go through the same filters, in the same order, as those of WAT files.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from laion_etl.core.import_factory import load_choice
from laion_etl.io.remote_files import open_input
from laion_etl.io.retries import DEFAULT_POLICY, RetryPolicy
from laion_etl.parse.link_batch import LinkBatch
from laion_etl.parse.warc_source import WarcSource
from laion_etl.parse.wat_reader import read_batches
from laion_etl.settings import ParseSettings

VARIABLE = "LAION_ETL_PARSE_SOURCE"


class LinkSource(Protocol):
    """The interface of sources; docs/library.md shows how to write one.

    Where a source has a method `files(crawl, root)` as well, that names the files of a crawl: their URIs, in
    an order that never changes, because a partition is the N-th group of them. `root` is
    LAION_ETL_CRAWL_SOURCE. Without it they are those of Common Crawl's wat.paths.gz, or those that a command
    names.
    """

    def batches(self, uri: str) -> Iterator[LinkBatch]:
        """Yield the links of a file, in order, as `link_batches` makes them from pages.

        Files are read in several processes, in any order. Raise InputError for a file that cannot be read; a
        record that cannot be read is yielded as a RecordReason.
        """
        ...


class WatSource:
    """Common Crawl's WAT files: a path, or s3://, https:// or file://."""

    def __init__(self, settings: ParseSettings, policy: RetryPolicy = DEFAULT_POLICY) -> None:
        self._captions = settings.captions
        self._policy = policy

    def batches(self, uri: str) -> Iterator[LinkBatch]:
        """Yields the links of a WAT file; raises InputError for one that cannot be read at all."""
        with open_input(uri, self._policy) as stream:
            yield from read_batches(stream, uri, self._captions)


def link_source(settings: ParseSettings, policy: RetryPolicy = DEFAULT_POLICY) -> LinkSource:
    """Return the source that the setting names: `wat`, `warc` or `module:factory`.

    The policy is for requests of the shipped sources. A factory is called with the settings and returns a
    LinkSource. Raises SettingsError if it does not.
    """
    shipped: dict[str, Callable[[ParseSettings], LinkSource]] = {
        "wat": partial(WatSource, policy=policy),
        "warc": partial(WarcSource, policy=policy),
    }
    return load_choice(
        settings.source, VARIABLE, shipped, settings, "batches(uri)", "LinkSource (docs/library.md)"
    )
