"""Embeds the images of an evaluation set, from which a dataset is to be kept apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from laion_etl.core.errors import InputError
from laion_etl.core.quantities import first_in_line
from laion_etl.dataset.evaluation_sets import EvaluationSet
from laion_etl.evaluate.embed import embedded
from laion_etl.evaluate.image_files import read_image
from laion_etl.score.model import ClipModel

_NAMED = 5  # files in an error message


def embed_folder(
    name: str, folder: Path, images: Sequence[Path], model: ClipModel, preparers: int
) -> EvaluationSet:
    """Embed the images of a folder, which `files_of` finds, in their order.

    Raises InputError if there are none, or if one cannot be read: samples near it would stay in the dataset.
    """
    if not images:
        raise InputError(
            f"cannot embed the images of {folder}: it has none; name a folder of JPEG, PNG, WebP "
            "or AVIF files"
        )
    parts: list[np.ndarray[tuple[int, int], np.dtype[np.float16]]] = []
    unreadable = dict.fromkeys(images)
    for vectors, readable, _ in embedded(model, ((read_image(path), path) for path in images), preparers):
        parts.append(vectors.astype(np.float16))
        for path in readable:
            del unreadable[path]
    if unreadable:
        names = first_in_line([str(path.relative_to(folder)) for path in unreadable], _NAMED)
        raise InputError(
            f"cannot embed the images of {folder}: {len(unreadable):,} of {len(images):,} cannot be read "
            f"({names}); convert them to PNG or remove them, and run the command again"
        )
    return EvaluationSet(name, model.name, model.weights_sha256, np.concatenate(parts))
