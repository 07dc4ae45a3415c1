"""A head of one's own: how much an image looks like a drawing, by two texts that CLIP compares it with.

PYTHONPATH=examples LAION_ETL_SAFETY_HEADS=own_head:Drawing laion-etl stage score --crawl CC-MAIN-2024-38
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import laion_etl as le


class Drawing:
    columns = (le.HeadColumn("pdrawing", "probability that the image is a drawing, not a photograph"),)
    identity = "drawing: two texts, version 1"

    def __init__(self, _settings: object, model: le.ClipModel) -> None:
        photograph, drawing = model.embed_texts(["a photograph", "a drawing"])
        self._direction = drawing - photograph

    def score(self, samples: le.HeadInput) -> NDArray[Any]:
        # Row by row: how `@` adds up depends on the number of rows.
        return 1 / (1 + np.exp(-100 * (samples.images * self._direction).sum(axis=1)))
