"""The record of a crawl that is published in ranges of batches: what all its ranges and the merge agree on.

`publish/<dataset>/<crawl>/prepared.json` is written before the ranges begin, one per variant. It says how the
planned batches are divided and what every range must know of the others: the version they write, the columns
of custom heads, the batches of the contact sheets. A range, or the merge, that finds other settings or
another plan refuses to go on. The result of range 7 is `range-00007.json` in the same folder (part.py).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from laion_etl.core.errors import DamagedFileError, InputError
from laion_etl.core.formats import check_format
from laion_etl.core.head_columns import HeadColumn, from_plain
from laion_etl.core.plain_json import NOT_AS_EXPECTED, parse_json
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import Output, fingerprint
from laion_etl.dataset.versions import Release
from laion_etl.io.storage import Store
from laion_etl.publish.completeness import Partitions
from laion_etl.report.publish_context import PIPELINE
from laion_etl.settings import Settings, Stage, shaping
from laion_etl.settings.publish import MAX_RANGES

FORMAT = 3  # of the statistics of ranges: 1 is without the sources of captions, 2 without contents
_NAME = "prepared.json"
COMPARED, SEMANTIC = "compared", "semantic"  # the folders of checkpoints: near_checkpoints.py
# compared_ranges.py writes them
_OF_ALL = tuple(f"{name}.{ending}" for name in (COMPARED, SEMANTIC) for ending in ("json", "parquet"))
_OF_RANGE = re.compile(r"/[a-z]+-(\d{5})\.[a-z]+\Z")


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Consecutive planned batches, first and last number; ranges are numbered from 1 on."""

    number: int
    first: int
    last: int
    count: int


def divide(planned: Sequence[int], batches_per_range: int) -> tuple[BatchRange, ...]:
    """Divide planned batches, ascending, into ranges of so many, or larger ones if there were too many."""
    size = max(batches_per_range, -(-len(planned) // MAX_RANGES))
    cuts = [planned[start : start + size] for start in range(0, len(planned), size)]
    return tuple(BatchRange(number, cut[0], cut[-1], len(cut)) for number, cut in enumerate(cuts, 1))


@dataclass(frozen=True, slots=True)
class Former:
    """The published version from which a removal takes over the files of ranges that hold nothing of it.

    `rules` and `removals` are those that it was prepared with, `changed` the ranges of which the removal has
    rewritten something: they are read, even where a shard has come back from a backup.
    """

    version: str
    rules: str
    removals: tuple[str, ...]
    changed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """How a crawl is published into one dataset.

    `planned` is the fingerprint of the planned batches, `rules` that of all that shapes the rows of a range
    apart from its batches. `max_missing_share` None: no batch that is published may be missing, see
    `check_still_scored`. `clusters` is the fingerprint of the clusters of embeddings, '' if these are not
    compared.
    """

    crawl: str
    dataset: str
    variant: str
    version: str
    planned: str
    ranges: tuple[BatchRange, ...]
    partitions: Partitions
    max_missing_share: float | None
    sheet_batches: tuple[int, ...]
    columns: tuple[HeadColumn, ...]
    earlier: tuple[Output, ...]
    removals: tuple[str, ...]
    clusters: str = ""
    rules: str = ""
    former: Former | None = None

    @property
    def release(self) -> Release:
        return Release(self.dataset, self.version)

    def rules_with(self, settings: Settings) -> str:
        """Return the rules under some settings."""
        return fingerprint(
            "publish range", FORMAT, PIPELINE, self.dataset, self.variant,
            shaping(settings, Stage.PUBLISH), self.planned, self.ranges, self.sheet_batches, self.columns,
            self.earlier, self.removals, *([self.clusters] if self.clusters else []),
        )  # fmt: skip

    def whole(self, inputs: Sequence[str]) -> str:
        """Return the fingerprint of the crawl, given those of the inputs of its ranges."""
        return fingerprint("publish", self.rules, self.partitions.missing, list(inputs))

    def write(self, store: Store) -> None:
        """Write the record, and delete results of ranges that no longer exist.

        Checkpoints of a comparison stay: their names say what they were made from.
        """
        folder = _folder(self.dataset, self.crawl)
        kept = {f"{one.number:05d}" for one in self.ranges}
        whole = {self.clusters_name, *(f"{folder}/{name}" for name in (_NAME, *_OF_ALL))}
        for name in store.list(folder):
            if name.startswith((f"{folder}/{COMPARED}/", f"{folder}/{SEMANTIC}/")):
                continue
            number = _OF_RANGE.search(name)
            if name not in whole and not (number and number[1] in kept):
                store.delete(name)
        document = {"format": FORMAT, **asdict(self)}
        data = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        store.write(f"{folder}/{_NAME}", data)

    def range_name(self, number: int) -> str:
        """Return the name in the store of the result of a range."""
        return self.name_of(number, "range", "json")

    def name_of(self, number: int, kind: str, ending: str) -> str:
        """Return the name in the store of another file of a range."""
        return f"{_folder(self.dataset, self.crawl)}/{kind}-{number:05d}.{ending}"

    def name_of_all(self, kind: str, ending: str) -> str:
        """Return the name in the store of a file about all ranges."""
        return f"{_folder(self.dataset, self.crawl)}/{kind}.{ending}"

    def folder_of_all(self, kind: str) -> str:
        """Return the name in the store of a folder of files about all ranges."""
        return f"{_folder(self.dataset, self.crawl)}/{kind}"

    @property
    def clusters_name(self) -> str:
        """Name in the store of the centroids of the clusters of embeddings."""
        return f"{_folder(self.dataset, self.crawl)}/centroids-{self.clusters}.npy"

    def find(self, number: int, total: int) -> BatchRange:
        """Return range I of N. Raises InputError unless there are N ranges."""
        if total != len(self.ranges) or not 1 <= number <= total:
            raise InputError(
                f"cannot publish range {number}/{total} of {self.crawl}: it was prepared in "
                f"{quantity(len(self.ranges), 'range')}; {again(self.crawl)}"
            )
        return self.ranges[number - 1]


def read_prepared(dataset: str, crawl: str, store: Store) -> Prepared | None:
    """Read the record of a crawl; None if there is none. Raises DamagedFileError if it is not one."""
    name = f"{_folder(dataset, crawl)}/{_NAME}"
    if (found := store.read_with_etag(name)) is None:
        return None
    try:
        document = parse_json(found[0])
        check_format(store.uri(name), document.get("format"), FORMAT)
        return _from_plain(document)
    except NOT_AS_EXPECTED as error:
        raise DamagedFileError(
            f"cannot read {store.uri(name)}: it is not the record of a prepared crawl ({error}); "
            f"{again(crawl)}"
        ) from error


def prepared_for(dataset: str, crawl: str, settings: Settings, store: Store) -> Prepared:
    """Return the record of a crawl. Raises InputError if there is none that was made for these settings."""
    prepared = read_prepared(dataset, crawl, store)
    if prepared is None:
        raise InputError(
            f"cannot publish a range of {crawl} into {dataset}: it is not prepared; {again(crawl)}"
        )
    if prepared.rules_with(settings) != prepared.rules:
        raise InputError(
            f"cannot publish a range of {crawl} into {dataset}: it was prepared with other settings, "
            f"or by another version of laion-etl; {again(crawl)}"
        )
    return prepared


def forget_prepared(dataset: str, crawl: str, store: Store) -> None:
    """Delete the record and the results of ranges of a crawl that is now published at once."""
    for name in store.list(_folder(dataset, crawl)):
        store.delete(name)


def again(crawl: str) -> str:
    """Return what to do when a record does not fit."""
    return f"run `laion-etl stage publish --crawl {crawl} --prepare` again"


@contextmanager
def comparison_errors(name: str, store: Store) -> Iterator[None]:
    """Turn errors of reading what a comparison of all ranges wrote, a parquet file, into InputError."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        crawl = name.split("/")[2]  # see _folder
        advice = f"run `laion-etl stage publish --crawl {crawl} --compare` again"
        raise InputError(f"cannot read {store.uri(name)}: {error}; {advice}") from error


def _folder(dataset: str, crawl: str) -> str:
    return f"publish/{dataset}/{crawl}"


def _from_plain(plain: Mapping[str, Any]) -> Prepared:
    share, former = plain["max_missing_share"], plain.get("former")
    return Prepared(
        crawl=str(plain["crawl"]),
        dataset=str(plain["dataset"]),
        variant=str(plain["variant"]),
        version=Release(plain["dataset"], plain["version"]).version,
        planned=str(plain["planned"]),
        ranges=tuple(BatchRange(**one) for one in plain["ranges"]),
        partitions=Partitions(plain["partitions"]["expected"], tuple(plain["partitions"]["missing"])),
        max_missing_share=None if share is None else float(share),
        sheet_batches=tuple(plain["sheet_batches"]),
        columns=from_plain(plain["columns"]),
        earlier=tuple(Output(**one) for one in plain["earlier"]),
        removals=tuple(plain["removals"]),
        clusters=str(plain.get("clusters", "")),
        rules=str(plain["rules"]),
        former=None if former is None else _former(former),
    )


def _former(plain: Mapping[str, Any]) -> Former:
    return Former(
        str(plain["version"]), str(plain["rules"]), tuple(plain["removals"]), tuple(plain["changed"])
    )
