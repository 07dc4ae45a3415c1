"""Retrieval on a shard: does a caption find its image among all images, and an image its caption?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.schemas import shard_stem
from laion_etl.evaluate.embed import embedded
from laion_etl.io.storage import Store
from laion_etl.score.model import ClipModel
from laion_etl.score.shard_reader import shard_samples

Floats = NDArray[np.float32]
KS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of pairs whose right partner is among the k nearest, by k."""

    pairs: int
    image_of_text: dict[int, float]
    text_of_image: dict[int, float]


def shard_recall(crawl: str, batch: int, model: ClipModel, store: Store, max_samples: int = 10_000) -> Recall:
    """Recall over the first `max_samples` readable samples of a downloaded shard."""
    stats = store.read_stats(f"{shard_stem(crawl, batch)}_stats.json")
    pairs = (
        (sample.image, sample.text)
        for sample in shard_samples(stats, store)
        if sample.image is not None and sample.text is not None
    )
    images, texts = [], []
    for found, captions, _ in embedded(model, islice(pairs, max_samples)):
        images.append(found)
        texts.append(model.embed_texts(captions))
    if not images or not sum(map(len, images)):
        raise InputError(f"shard {batch} of {crawl} has no readable sample")
    return recall(np.concatenate(images), np.concatenate(texts))


def recall(images: Floats, texts: Floats, ks: Sequence[int] = KS) -> Recall:
    """Recall at k of rows (n, dim) that belong together; equal cosines count in favour of the right one."""
    cosines = texts @ images.T
    right = np.diagonal(cosines)
    rank_of_image = (cosines > right[:, None]).sum(axis=1)
    rank_of_text = (cosines > right[None, :]).sum(axis=0)
    return Recall(
        len(images),
        {k: float((rank_of_image < k).mean()) for k in ks},
        {k: float((rank_of_text < k).mean()) for k in ks},
    )
