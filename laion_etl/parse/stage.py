"""Parse stage: WAT files of one partition -> pairs parquet.

Cheap rules come first: text and URL, then duplicates, and language identification only for what is
left, because it costs more than everything before it together.
"""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from laion_etl.funnel import Outcomes, ParseReason, RecordReason
from laion_etl.inputs import open_input
from laion_etl.parse.language import LanguageDetector
from laion_etl.parse.members import Damage
from laion_etl.parse.text import clean_alt
from laion_etl.parse.urls import host_of, image_url, registered_domain
from laion_etl.parse.wat import ImageLink, Page, read_pages
from laion_etl.records import PAIR_SCHEMA, StageStats, fingerprint, pair_id, partition_name
from laion_etl.settings import ParseSettings, Settings
from laion_etl.storage import Store

_ROWS_PER_GROUP = 50_000
_DAMAGES_NAMED = 100

Row = tuple[bytes, str, str, str, float, str, str, str, int, int]  # the fields of PAIR_SCHEMA


def parse_partition(
    crawl: str,
    partition: int,
    wat_files: Sequence[tuple[int, str]],
    settings: Settings,
    store: Store,
    on_file: Callable[[int, int], None] | None = None,
) -> StageStats:
    """Parses (index in wat.paths, URI) files into `pairs/<crawl>/part-<partition>.parquet`.

    The stats count image links; `details.records` counts the WAT records, and `details.damaged` names the
    first damaged ones as (WAT file, offset). `on_file` hears of files
    done and in all. Raises InputError for a file that can't be read as a whole.
    """
    unit = partition_name(partition)
    identity = fingerprint("parse", settings.parse, list(wat_files))
    stats_name = f"pairs/{crawl}/{unit}.json"
    if (done := store.finished(stats_name, identity)) is not None:
        return done
    parser = PartitionParser(settings.parse)
    with (
        store.create(f"pairs/{crawl}/{unit}.parquet") as file,
        pq.ParquetWriter(file, PAIR_SCHEMA, compression="zstd") as writer,
    ):
        for position, (index, uri) in enumerate(wat_files, 1):
            for group in _groups(parser.pairs(index, uri)):
                writer.write_table(group)
            if on_file is not None:
                on_file(position, len(wat_files))
    records, links = parser.records, parser.links
    stats = StageStats(
        stage="parse",
        crawl=crawl,
        unit=unit,
        fingerprint=identity,
        input=links.input,
        kept=links.kept,
        dropped=links.dropped,
        outputs=(file.output,),
        details={
            "wat_files": len(wat_files),
            "damaged": parser.damaged[:_DAMAGES_NAMED],
            "records": {"input": records.input, "kept": records.kept, "dropped": records.dropped},
        },
    )
    return store.write_stats(stats_name, stats)


class PartitionParser:
    """Turns WAT files into pairs, remembering what the partition has already given.

    Memory grows with the distinct pairs of the partition: about 90 bytes each.
    """

    def __init__(self, settings: ParseSettings) -> None:
        self.records = Outcomes[RecordReason]()
        self.links = Outcomes[ParseReason]()
        self.damaged: list[list[int]] = []  # WAT file, offset of the damaged member
        self._settings = settings
        self._detector = LanguageDetector(settings)
        self._seen: set[bytes] = set()

    def pairs(self, wat_file: int, uri: str) -> Iterator[Row]:
        """The pairs of one WAT file in the order of its links."""
        with open_input(uri) as stream:
            for page in read_pages(stream, uri):
                if isinstance(page, Damage):
                    self.records.drop(RecordReason.DAMAGED)
                    self.damaged.append([wat_file, page.offset])
                    continue
                if isinstance(page, RecordReason):
                    self.records.drop(page)
                    continue
                self.records.keep()
                for link in page.images:
                    row = self._pair(link, page, wat_file)
                    if isinstance(row, ParseReason):
                        self.links.drop(row)
                    else:
                        self.links.keep()
                        yield row

    def _pair(self, link: ImageLink, page: Page, wat_file: int) -> Row | ParseReason:
        if not link.url:
            return ParseReason.NO_URL
        alt = clean_alt(link.alt or "", self._settings.max_alt_chars)
        if not alt:
            return ParseReason.NO_ALT
        if len(alt) < self._settings.min_alt_chars:
            return ParseReason.ALT_TOO_SHORT
        url = image_url(link.url, page.base, self._settings)
        if isinstance(url, ParseReason):
            return url
        identity = pair_id(url, alt)
        if identity in self._seen:
            return ParseReason.DUPLICATE
        self._seen.add(identity)
        code, probability = self._detector.detect(alt)
        domain = registered_domain(host_of(url))
        return (identity, url, alt, code, probability, page.licence, page.url, domain, wat_file, page.offset)


def _groups(rows: Iterator[Row]) -> Iterator[pa.Table]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == _ROWS_PER_GROUP:
            yield _table(group)
            group.clear()
    if group:
        yield _table(group)


def _table(rows: list[Row]) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, PAIR_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=PAIR_SCHEMA)
