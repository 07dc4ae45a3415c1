"""Checks rows of a published file: whether they belong there, their hash, and their similarity."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.schemas import SUBSET_EN, keys_of_ids, pair_id
from laion_etl.dataset.manifest import ManifestPart
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS, Subset

_ROUNDING = 1e-6  # similarities are stored in 32 bits


def wrong_rows(table: pa.Table, part: ManifestPart, subset: Subset) -> Counter[str]:
    """Return how many rows of a file of a subset are wrong, by what is wrong with them."""
    found = Counter({"that do not belong there": _misplaced(table, part, subset)})
    if subset.name in LANGUAGE_SUBSETS:  # the others repeat their rows
        found["whose hash or pair_id is not that of URL and TEXT"] = _mishashed(table)
        limit = _threshold(part, subset)
        if limit is not None:
            below = pc.fill_null(pc.less(table["similarity"], limit - _ROUNDING), False)
            what = f"whose similarity is below {limit:g}, which the manifest states"
            found[what] = pc.sum(below).as_py() or 0
    return +found


def _misplaced(table: pa.Table, part: ManifestPart, subset: Subset) -> int:
    """Count rows that the subset's rule does not select, of another crawl, or with a wrong key."""
    keys = keys_of_ids(table["SAMPLE_ID"])
    right = pc.and_(pc.equal(table["crawl"], part.crawl), pc.equal(table["key"], keys))
    count: int = pc.sum(pc.and_(right, subset.selects(table))).as_py() or 0
    return int(table.num_rows) - count


def _mishashed(table: pa.Table) -> int:
    """Count rows whose hash or pair id is not made from URL and TEXT; older files have no pair id."""
    columns = (table[name].to_pylist() for name in ("URL", "TEXT", "hash", "pair_id"))
    wrong = 0
    for url, text, number, pair in zip(*columns, strict=True):
        made = pair_id(url, text)
        right = int.from_bytes(made[:8], signed=True) == number and pair in (None, made.hex())
        wrong += not right
    return wrong


def _threshold(part: ManifestPart, subset: Subset) -> float | None:
    """Return the lowest similarity that the manifest states for a subset; None if it states none."""
    clip: Any = part.settings.get("clip", {})
    value = clip.get("threshold_en" if subset.name == SUBSET_EN else "threshold_other")
    known = [float(one) for one in (value if isinstance(value, list) else [value]) if one is not None]
    return min(known) if known else None
