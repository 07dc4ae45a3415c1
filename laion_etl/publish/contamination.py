"""Samples near an image of an evaluation set, which would make results on that set worthless (DataComp)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from laion_etl.core.errors import InputError
from laion_etl.core.funnel import PublishReason
from laion_etl.core.ids import batch_name
from laion_etl.dataset.evaluation_sets import EvaluationSet
from laion_etl.dataset.scored import ScoredCrawl
from laion_etl.publish.batch_vectors import BatchVectors, Floats, unit

REASON = PublishReason.NEAR_EVALUATION_SET.value
_ROWS_AT_ONCE = 1_024
_IMAGES_AT_ONCE = 8_192


@dataclass(frozen=True, slots=True)
class Contamination:
    """Embeddings of evaluation sets, of length 1, and the least cosine of samples that are left out."""

    images: Floats
    cosine: float
    vectors: BatchVectors

    def reasons(self, rows: pa.RecordBatch) -> pa.Array:
        """Return the reason for each kept row near an image of a set, null for others; rows of one batch."""
        kept = rows.column("reason").is_null().to_numpy(zero_copy_only=False)
        found = np.zeros(rows.num_rows, np.bool_)
        if kept.any():
            keys = np.asarray(rows.column("key").filter(pa.array(kept)).to_pylist(), "S")
            found[kept] = self._near(unit(self.vectors.of(keys)))
        return pa.array([REASON if hit else None for hit in found.tolist()], pa.string())

    def _near(self, vectors: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        if vectors.shape[1] != self.images.shape[1]:
            raise InputError(
                f"cannot compare embeddings of {vectors.shape[1]} dimensions with those of an evaluation "
                f"set, which have {self.images.shape[1]}: they are not of the model that the set names; "
                "make the set again under another name (`laion-etl dataset evaluation-set`)"
            )
        near = np.zeros(len(vectors), np.bool_)
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = vectors[start : start + _ROWS_AT_ONCE]
            for first in range(0, len(self.images), _IMAGES_AT_ONCE):
                images = self.images[first : first + _IMAGES_AT_ONCE]
                near[start : start + _ROWS_AT_ONCE] |= (part @ images.T).max(axis=1) >= self.cosine
        return near


def contamination(
    sets: Sequence[EvaluationSet], scored: ScoredCrawl, cosine: float, vectors: BatchVectors
) -> Contamination:
    """Return what finds samples of a crawl near these sets, one at least.

    Raises InputError if a batch was scored by another model than a set was embedded by.
    """
    for one in sets:
        for batch in scored.batches:
            if not one.is_of(batch.model):
                raise InputError(
                    f"cannot compare batch {batch_name(batch.number)} of {scored.crawl} with the evaluation "
                    f"set {one.name}: the batch was scored by {batch.model or 'an unnamed model'}, the set "
                    f"embedded by {one.model}, weights {one.weights_sha256[:12]}; embed the set by the model "
                    "of the crawl (`laion-etl dataset evaluation-set`)"
                )
    if len(sizes := sorted({one.vectors.shape[1] for one in sets})) > 1:
        raise InputError(
            f"cannot compare {scored.crawl} with evaluation sets of {sizes[0]} and {sizes[-1]} dimensions: "
            "they are not all of the model that they name; make them again under other names "
            "(`laion-etl dataset evaluation-set`)"
        )
    return Contamination(np.concatenate([unit(one.vectors) for one in sets]), cosine, vectors)
