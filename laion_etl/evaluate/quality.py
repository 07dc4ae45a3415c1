"""The quality of a published dataset: similarity and aesthetic score by language."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from laion_etl.core.errors import InputError
from laion_etl.core.parquet_bounds import BoundedParquet
from laion_etl.io.storage import Store

_SUBSETS = ("laion-en", "laion-multi", "laion-nolang")  # the others are cut from these
_COLUMNS = ["LANGUAGE", "similarity", "aesthetic"]
_MAX_LANGUAGES = 200
_ROWS_PER_READ = 1 << 14


@dataclass(frozen=True, slots=True)
class LanguageQuality:
    """A language of the dataset, '' for none; 5th, 50th and 95th percentile of each score."""

    language: str
    samples: int
    similarity: tuple[float, float, float]
    aesthetic: tuple[float, float, float] | None


def dataset_quality(prefix: str, store: Store) -> list[LanguageQuality]:
    """The languages of the dataset at `prefix`, most samples first. Raises InputError without samples."""
    found: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
    names = [name for subset in _SUBSETS for name in store.list(f"{prefix}{subset}/")]
    for name in (name for name in names if name.endswith(".parquet")):
        with store.open(name) as file:
            try:
                for rows in BoundedParquet(file).iter_batches(_ROWS_PER_READ, _COLUMNS):
                    for row in rows.to_pylist():
                        found[row["LANGUAGE"] or ""].append((row["similarity"], row["aesthetic"]))
            except (pa.ArrowException, OSError, KeyError) as error:
                raise InputError(
                    f"cannot read {store.uri(name)}: {error}; see `laion-etl dataset verify`"
                ) from error
    if not found:
        raise InputError(
            f"cannot show the quality of {store.uri(prefix)}: it has no published samples; publish a crawl "
            "that has some"
        )
    rows = [_quality(language, values) for language, values in found.items()]
    return sorted(rows, key=lambda row: (-row.samples, row.language))[:_MAX_LANGUAGES]


def _quality(language: str, values: list[tuple[float, float | None]]) -> LanguageQuality:
    aesthetics = [value for _, value in values if value is not None]
    return LanguageQuality(
        language,
        len(values),
        _spread([value for value, _ in values]),
        _spread(aesthetics) if aesthetics else None,
    )


def _spread(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return float(low), float(middle), float(high)
