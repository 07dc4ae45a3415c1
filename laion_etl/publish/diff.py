"""Compares two versions: rows of each subset, settings and files, in constant memory."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.dataset.manifest import Manifest, read_manifest
from laion_etl.dataset.row_streams import merge_by_id, read_rows, sample_ids
from laion_etl.dataset.versions import read_versions
from laion_etl.io.storage import Store


@dataclass(frozen=True, slots=True)
class SubsetChange:
    """Rows by SAMPLE_ID: only in the new version, only in the old one, in both but different, and equal."""

    subset: str
    added: int
    removed: int
    changed: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A changed setting of a crawl's rows; None if a version does not have the setting."""

    crawl: str
    setting: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes from an old version to a new one."""

    old: str
    new: str
    subsets: tuple[SubsetChange, ...]
    settings: tuple[SettingChange, ...]
    files_added: tuple[str, ...]
    files_removed: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def diff_versions(dataset: str, old: str, new: str, store: Store) -> Difference:
    """Compare two visible versions; `name/version` names one of another dataset, such as another variant.

    Raises InputError for a version that does not exist or a damaged file.
    """
    before, after = (_manifest(dataset, version, store) for version in (old, new))
    crawls = sorted({part.crawl for manifest in (before, after) for part in manifest.parts})
    names = dict.fromkeys([*before.subsets, *after.subsets])
    listed = [{file.name for file in manifest.files if file.subset} for manifest in (before, after)]
    return Difference(
        f"{before.release.name}/{before.release.version}",
        f"{after.release.name}/{after.release.version}",
        tuple(_subset(subset, crawls, before, after, store) for subset in names),
        tuple(change for crawl in crawls for change in _settings(crawl, before, after)),
        tuple(sorted(listed[1] - listed[0])),
        tuple(sorted(listed[0] - listed[1])),
    )


def _manifest(dataset: str, named: str, store: Store) -> Manifest:
    other, slash, version = named.rpartition("/")
    dataset = other if slash else dataset
    return read_manifest(dataset, read_versions(dataset, store).find(version), store)


def _subset(subset: str, crawls: list[str], before: Manifest, after: Manifest, store: Store) -> SubsetChange:
    added = removed = changed = unchanged = 0
    for crawl in crawls:
        old, new = before.data_files(subset, crawl), after.data_files(subset, crawl)
        if [file.sha256 for file in old] == [file.sha256 for file in new]:
            unchanged += sum(file.rows or 0 for file in new)
            continue
        for one, other in merge_by_id([read_rows(old, store), read_rows(new, store)]):
            common = np.intersect1d(sample_ids(one), sample_ids(other), assume_unique=True)
            differing = _differing(_only(one, common), _only(other, common))
            added += other.num_rows - common.size
            removed += one.num_rows - common.size
            changed += differing
            unchanged += common.size - differing
    return SubsetChange(subset, added, removed, changed, unchanged)


def _only(table: pa.Table, ids: Any) -> pa.Table:
    return table.filter(pa.array(np.isin(sample_ids(table), ids)))


def _differing(one: pa.Table, other: pa.Table) -> int:
    """Count the rows in which any column differs; the tables have the same ids in the same order."""
    differs = np.zeros(one.num_rows, np.bool_)
    if one.num_rows and one.schema != other.schema:  # a custom head was added or removed
        return int(one.num_rows)
    for name in one.column_names if one.num_rows else ():
        left, right = one[name], other[name]
        unequal = pc.fill_null(pc.not_equal(left, right), False)
        one_is_null = pc.xor(pc.is_null(left), pc.is_null(right))
        differs |= pc.or_(unequal, one_is_null).to_numpy()
    return int(np.count_nonzero(differs))


def _settings(crawl: str, before: Manifest, after: Manifest) -> Iterator[SettingChange]:
    parts = before.part(crawl), after.part(crawl)
    if None in parts:
        return
    old, new = (_flat(part.settings) for part in parts if part is not None)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield SettingChange(crawl, name, old.get(name), new.get(name))


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{group}.{name}": value for group, values in settings.items() for name, value in values.items()}
