"""Retrieval on a shard: does a caption find its image among all images, and an image one of its captions?

As CLIP_benchmark defines it: samples with the same image are one image with several captions, each of which
is right for it. Of equal cosines the wrong ones rank first: embeddings that are all the same find nothing.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import InputError
from laion_etl.core.schemas import shard_stats_name
from laion_etl.evaluate.embed import embedded
from laion_etl.io.storage import Store
from laion_etl.score.finite import check_embeddings
from laion_etl.score.model import ClipModel
from laion_etl.score.shard_reader import shard_samples

Floats = NDArray[np.float32]
KS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of captions whose image, and of images one of whose captions, is among the k nearest, by k."""

    pairs: int
    images: int
    image_of_text: dict[int, float]
    text_of_image: dict[int, float]


def shard_recall(
    crawl: str, batch: int, model: ClipModel, store: Store, preparers: int, max_samples: int = 10_000
) -> Recall:
    """Recall over the first `max_samples` readable samples of a downloaded shard.

    `preparers` as for `embedded`.
    """
    stats = store.read_stats(shard_stats_name(crawl, batch))
    pairs = (
        (sample.image, (sample.text, hashlib.sha256(sample.image[1]).digest()))
        for sample in shard_samples(stats, store)
        if sample.image is not None and sample.text is not None
    )
    places: dict[bytes, int] = {}  # of each image among those that differ
    images, texts, owners = [], [], []
    for found, labels, _ in embedded(model, islice(pairs, max_samples), preparers):
        for row, (_, digest) in zip(found, labels, strict=True):
            if digest not in places:
                places[digest] = len(places)
                images.append(row)
            owners.append(places[digest])
        texts.append(model.embed_texts([text for text, _ in labels]))
    if not images:
        raise InputError(f"shard {batch} of {crawl} has no readable sample")
    every_image, every_text = np.stack(images), np.concatenate(texts)
    check_embeddings(every_image, model.name, "an image")
    check_embeddings(every_text, model.name, "a caption")
    return recall(every_image, every_text, owners)


def recall(images: Floats, texts: Floats, owners: Sequence[int], ks: Sequence[int] = KS) -> Recall:
    """Recall at k of images (n, dim) and texts (m, dim).

    Args:
        images: Embeddings of different images.
        texts: Embeddings of captions; every image has at least one.
        owners: The place of the image of each text.
        ks: The numbers of nearest ones that are looked at.
    """
    cosines = texts @ images.T
    owner = np.asarray(owners)
    right = cosines[np.arange(len(texts)), owner]
    # Not "at least as near": NaN is that of nothing, and has to rank last.
    rank_of_image = (~(cosines < right[:, None])).sum(axis=1) - 1
    best = np.full(len(images), -np.inf, cosines.dtype)
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        np.maximum.at(best, owner, right)
    own = np.bincount(owner, ~(right < best[owner]), len(images))
    rank_of_text = (~(cosines < best[None, :])).sum(axis=0) - own
    return Recall(
        len(texts),
        len(images),
        {k: float((rank_of_image < k).mean()) for k in ks},
        {k: float((rank_of_text < k).mean()) for k in ks},
    )
