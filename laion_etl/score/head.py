"""The interface of heads: scores from the embedding of an image, and if they want from its caption.

Built-in heads and custom ones have the same interface, and one list of them (`head_registry.py`) is all that
the scorer knows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.rule_failures import apply_by_rows
from laion_etl.core.schemas import SCORED_SCHEMA

Floats = NDArray[np.float32]
Values = NDArray[Any] | Sequence[Any]
Scores = dict[str, list[Any]]  # a value for each sample, by column

_KINDS = {"float32": "f", "int32": "iu", "int64": "iu", "bool": "b", "string": "U"}


@dataclass(frozen=True, slots=True)
class HeadInput:
    """Samples to score, one for each row.

    `images`: L2-normalised image embeddings (n, dim) of the CLIP model. `captions`: n texts. `watermarks`:
    probabilities (n) of the watermark model, if there is one.
    """

    images: Floats
    captions: Sequence[str]
    watermarks: Floats | None = None


class Head(Protocol):
    """The interface of heads; docs/library.md shows how to write one."""

    @property
    def columns(self) -> Sequence[HeadColumn]:
        """The columns that this head writes, at least one."""
        ...

    @property
    def identity(self) -> str:
        """Its name in fingerprints and manifests, which changes whenever its scores may."""
        ...

    def score(self, samples: HeadInput) -> Values | Mapping[str, Values | None]:
        """Return a value for each sample, in order; of several columns a mapping from their names.

        None for a column: it was not computed. Values must be finite. The same sample must get the same value
        whatever samples come with it.

        Args:
            samples: n samples.
        """
        ...


# Receives the place of a sample, the head, and the exception that it raised for the sample.
Failed = Callable[[int, Head, Exception], None]


def score_all(heads: Sequence[Head], samples: HeadInput, failed: Failed | None = None) -> Scores:
    """Return the values of all heads; a later head replaces a column of an earlier one.

    A sample whose embedding is not finite has no scores: its values are None. So are those of a sample that a
    custom head raises an exception for, if `failed` takes the exception. A built-in head may return NaN or an
    infinity, which `is_scored` finds. Raises ModelError for a custom head that returns anything but a finite
    value of the right type for each sample.
    """
    readable = np.asarray(np.isfinite(samples.images).all(axis=1))
    if readable.all():
        return _scores(heads, samples, failed)
    places = np.flatnonzero(readable).tolist()

    def failed_there(place: int, head: Head, error: Exception) -> None:
        if failed is None:
            raise error
        failed(places[place], head, error)

    found = _scores(heads, _chosen(samples, places), failed and failed_there) if places else {}
    names = [column.name for head in heads for column in head.columns]
    spread: Scores = {name: [None] * len(readable) for name in names}
    for name, values in found.items():
        for place, value in zip(places, values, strict=True):
            spread[name][place] = value
    return spread


def is_scored(values: Iterable[Any]) -> bool:
    """Whether no score is NaN or infinite; None is a score that was not asked for."""
    return all(isfinite(value) for value in values if isinstance(value, float))


def _chosen(samples: HeadInput, places: list[int]) -> HeadInput:
    marks = samples.watermarks
    captions = [samples.captions[place] for place in places]
    return HeadInput(samples.images[places], captions, None if marks is None else marks[places])


def _scores(heads: Sequence[Head], samples: HeadInput, failed: Failed | None) -> Scores:
    found: Scores = {}
    for head in heads:
        if failed is None or _is_built_in(head):
            found |= _values(head, samples)
        else:
            found |= _contained(head, samples, failed)
    return found


def _is_built_in(head: Head) -> bool:
    """Whether datasets rely on its values: without them a sample might pass for safe."""
    return any(column.name in SCORED_SCHEMA.names for column in head.columns)


def _contained(head: Head, samples: HeadInput, failed: Failed) -> Scores:
    """Returns the values of a head, which is called with fewer samples where it raises an exception."""
    count = len(samples.images)
    found: Scores = {column.name: [None] * count for column in head.columns}

    def apply(start: int, end: int) -> None:
        whole = (start, end) == (0, count)
        values = _values(head, samples if whole else _chosen(samples, list(range(start, end))))
        for name, of_samples in values.items():
            found[name][start:end] = of_samples

    apply_by_rows(apply, count, lambda place, error: failed(place, head, error))
    return found


def _values(head: Head, samples: HeadInput) -> Scores:
    values = head.score(samples)
    by_name = values if isinstance(values, Mapping) else {head.columns[0].name: values}
    if set(by_name) != (names := {column.name for column in head.columns}):
        raise _refused(head, f"it returned {sorted(by_name)} for its columns {sorted(names)}")
    return {
        column.name: _checked(head, column, by_name[column.name], len(samples.images))
        for column in head.columns
    }


def _checked(head: Head, column: HeadColumn, values: Values | None, count: int) -> list[Any]:
    if values is None:
        return [None] * count
    array = np.asarray(values)
    if array.shape != (count,) or (count and array.dtype.kind not in _KINDS[column.type]):
        cause = f"it returned {array.dtype} values of shape {array.shape} for {count} samples"
        raise _refused(head, f"{cause} as {column.name}, a column of {column.type}")
    if column.type == "string":
        return [str(value) for value in array.tolist()]
    typed = array.astype(column.type)
    if column.type == "float32" and not np.isfinite(typed).all() and not _is_built_in(head):
        raise _refused(head, f"it returned a value that is not finite as {column.name}")
    if not np.array_equal(typed, array) and column.type != "float32":
        raise _refused(head, f"it returned a value that is too large for {column.type} as {column.name}")
    plain: list[Any] = typed.tolist()
    return plain


def _refused(head: Head, cause: str) -> ModelError:
    return ModelError(
        f"cannot use the head {type(head).__name__}: {cause}; return a finite value for each sample "
        "(docs/library.md)"
    )
