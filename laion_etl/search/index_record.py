"""The record of an index: its parts, its model, and the frequent values that the page offers as filters."""

from collections import Counter
from collections.abc import Iterable, Sequence

from laion_etl.core.errors import InputError
from laion_etl.core.quantities import quantity
from laion_etl.core.stage_stats import StageStats
from laion_etl.search.layout import FORMAT
from laion_etl.search.published_rows import PublishedVersion

COUNTED = {"languages": "LANGUAGE", "licenses": "LICENSE", "tags": "NSFW"}
_MAX_COUNTED_VALUES = 200  # most frequent values of a column that are kept


def most_frequent(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Return the sums by value, most frequent first."""
    total = sum((Counter(count) for count in counts), Counter[str]())
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0]))[:_MAX_COUNTED_VALUES])


def nodes_of(part: StageStats) -> int:
    """Return the number of vectors of a part; format 1 has one per row."""
    return int(part.details.get("nodes", part.kept))


def whole_index(published: PublishedVersion, wanted: str, parts: Sequence[StageStats]) -> StageStats:
    """Return the record of a version's index from those of its parts.

    Raises InputError if several models scored them.
    """
    weights = sorted({part.details["weights_sha256"] for part in parts})
    if len(weights) > 1:
        raise InputError(
            f"cannot index {published.release.folder}: it was scored by {quantity(len(weights), 'model')}, "
            "whose embeddings are not comparable; score its crawls with one model"
        )
    return StageStats(
        stage="index",
        crawl="",
        unit=f"{published.release.name}/{published.release.version}",
        fingerprint=wanted,
        input=sum(part.input for part in parts),
        kept=sum(part.kept for part in parts),
        dropped=dict(sum((Counter(part.dropped) for part in parts), Counter[str]())),
        outputs=tuple(output for part in parts for output in part.outputs),
        details={
            "format": FORMAT,
            "published": published.fingerprint,
            "parts": [{"crawl": part.crawl, "unit": part.unit, "rows": part.kept} for part in parts],
            **({key: parts[0].details[key] for key in ("model", "weights_sha256", "dim")} if parts else {}),
            **{what: most_frequent(part.details[what] for part in parts) for what in COUNTED},
        },
    )
