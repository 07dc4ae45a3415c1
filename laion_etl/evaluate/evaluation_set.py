"""Embeds the images of an evaluation set, from which a dataset is to be kept apart."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from laion_etl.core.errors import InputError
from laion_etl.dataset.evaluation_sets import EvaluationSet
from laion_etl.evaluate.embed import embedded
from laion_etl.evaluate.zero_shot import IMAGE_ENDINGS
from laion_etl.score.model import ClipModel
from laion_etl.score.preprocess_pool import ImageFile


def embed_folder(name: str, folder: Path, model: ClipModel, preparers: int) -> EvaluationSet:
    """Embed all images of a folder and its subfolders, in the order of their names.

    Raises InputError if there are none, or if one cannot be read: samples near it would stay in the dataset.
    """
    parts, unreadable = [], 0
    for vectors, _, failed in embedded(model, _images(folder), preparers):
        parts.append(vectors.astype(np.float16))
        unreadable += failed
    if unreadable or not parts:
        raise InputError(
            f"cannot embed the images of {folder}: "
            + (
                f"{unreadable:,} of them cannot be read; remove them and run the command again"
                if unreadable
                else "it has none; name a folder of JPEG, PNG or WebP files"
            )
        )
    return EvaluationSet(name, model.name, model.weights_sha256, np.concatenate(parts))


def _images(folder: Path) -> Iterator[tuple[ImageFile, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (ending := IMAGE_ENDINGS.get(path.suffix[1:].lower())):
            yield (ending, path.read_bytes()), path.name
