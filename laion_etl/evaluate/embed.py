"""Embeddings of images from any source: the first step of every evaluation."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from laion_etl.score.model import ClipModel
from laion_etl.score.preparer import ImageFile, PreprocessInput
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.shared_tables import Plans

Floats = NDArray[np.float32]
Label = TypeVar("Label")

_BATCH = 128


def embedded(
    model: ClipModel, images: Iterable[tuple[ImageFile, Label]], preparers: int
) -> Iterator[tuple[Floats, list[Label], int]]:
    """Batches of L2-normalised embeddings (n, dim) with the labels of the n readable images.

    The third value is the number of unreadable ones. `preparers` is the number of processes that decode, as
    LAION_ETL_CLIP_PREPARERS.
    """
    with Preparers(Plans((model.pixel_plan,)), _BATCH, 2, preparers) as pool:
        rest = iter(images)
        while batch := list(islice(rest, _BATCH)):
            prepared = pool.prepare([PreprocessInput(image) for image, _ in batch])
            prepared.wait()
            places = prepared.places
            found = (
                model.embed_pixels(prepared.tables.pixels[0][places])
                if places
                else np.empty((0, model.dim), np.float32)
            )
            pool.release(prepared)
            yield found, [batch[place][1] for place in places], len(batch) - len(places)
