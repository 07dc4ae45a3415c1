"""Scenes as a crawl would find them, and how well a CLIP separates matching from other texts on them.

A pair is positive when the text is a caption of the image's scene, negative when it is a caption
of another random scene. Both are drawn equally often.
"""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laion_etl.minicrawl.scenes import Scene, caption, draw, random_scene
from laion_etl.score.model import ClipModel

Floats = NDArray[np.float32]

DOWNLOADED_SHORT_SIDE = 256
_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosines of matching and of mismatching pairs."""

    matching: Floats
    mismatching: Floats


@dataclass(frozen=True, slots=True)
class Quality:
    """Precision and recall of keeping at or above a threshold."""

    precision: float
    recall: float


def photo(scene: Scene, rng: random.Random, longest: int = 420) -> Image.Image:
    """The scene at an assorted size and JPEG quality, scaled down as the downloader does."""
    long_side, ratio = rng.randint(90, longest), rng.uniform(0.5, 1.0)
    width, height = long_side, max(64, round(long_side * ratio))
    if rng.random() < 0.5:
        width, height = height, width
    file = io.BytesIO()
    draw(scene, width, height, rng).save(file, "JPEG", quality=rng.randint(72, 95))
    image = Image.open(file).convert("RGB")
    shrink = DOWNLOADED_SHORT_SIDE / min(image.size)
    if shrink >= 1:
        return image
    size = (round(image.width * shrink), round(image.height * shrink))
    return image.resize(size, Image.Resampling.BOX)


def another_scene(scene: Scene, rng: random.Random) -> Scene:
    """A random scene that is not the given one."""
    other = random_scene(rng)
    while other == scene:
        other = random_scene(rng)
    return other


def embed_photos(model: ClipModel, scenes: Sequence[Scene], rng: random.Random) -> Floats:
    """Embeddings of one photo per scene, in order."""
    parts = []
    for start in range(0, len(scenes), _CHUNK):
        pixels = [model.preprocess(photo(scene, rng)) for scene in scenes[start : start + _CHUNK]]
        parts.append(model.embed_images(pixels))
    return np.concatenate(parts)


def similarities(
    model: ClipModel, scenes: Sequence[Scene], images: Floats, languages: Sequence[str], rng: random.Random
) -> Similarities:
    """Cosines of each image with one right and one wrong caption in each language."""
    right, wrong = [], []
    for language in languages:
        texts = [caption(scene, language, rng) for scene in scenes]
        others = [caption(another_scene(scene, rng), language, rng) for scene in scenes]
        right.append((images * _embed_texts(model, texts)).sum(axis=1))
        wrong.append((images * _embed_texts(model, others)).sum(axis=1))
    return Similarities(np.concatenate(right), np.concatenate(wrong))


def calibrate(found: Similarities) -> float:
    """The threshold where precision and recall are best together (largest minimum), two decimals."""
    candidates = np.round(np.arange(0.05, 0.96, 0.01), 2)
    worst = [min(q.precision, q.recall) for q in (quality(found, float(c)) for c in candidates)]
    best = np.flatnonzero(np.asarray(worst) == max(worst))
    return float(candidates[best[len(best) // 2]])


def quality(found: Similarities, threshold: float) -> Quality:
    """Precision and recall at a threshold; a precision over nothing kept is 0."""
    kept_right = int((found.matching >= threshold).sum())
    kept = kept_right + int((found.mismatching >= threshold).sum())
    return Quality(kept_right / kept if kept else 0.0, kept_right / len(found.matching))


def _embed_texts(model: ClipModel, texts: Sequence[str]) -> Floats:
    parts = [model.embed_texts(texts[start : start + _CHUNK]) for start in range(0, len(texts), _CHUNK)]
    return np.concatenate(parts)
