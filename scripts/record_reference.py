"""Records the embeddings of the configured CLIP model, for `laion-etl model check` to compare with.

Run it where the weights can be had and are known to be right, by their tag:

    LAION_ETL_CLIP_MODEL=ViT-B-32 LAION_ETL_CLIP_PRETRAINED=openai python -m scripts.record_reference

It uses open_clip's own transform, tokenizer and towers, one input at a time, in fp32 on the CPU: not the code
that is checked with the result.
"""

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from laion_etl.core.errors import ModelError
from laion_etl.score.fixed_inputs import CAPTIONS, fixed_images
from laion_etl.score.model import MAX_TEXT_CHARS, ClipModel, load_model
from laion_etl.score.reference import FOLDER, compare, write
from laion_etl.settings import ClipSettings, load_settings

Floats = NDArray[np.float32]


def record(settings: ClipSettings, folder: Path = FOLDER) -> Path:
    """Write the record of the model of the settings; return its path."""
    model = load_model(replace(settings, device="cpu", precision="fp32"))
    images, captions = plain_images(model, fixed_images()), plain_captions(model, CAPTIONS)
    name = f"{settings.model}-{Path(settings.pretrained).stem}".replace("/", "-").replace(":", "-")
    return write(folder, name, model.weights_sha256, images, captions)


def plain_images(model: ClipModel, files: Iterable[bytes]) -> Floats:
    """Return embeddings of image files (n, dim), as open_clip documents it."""
    images = (model.preprocess(Image.open(io.BytesIO(data)).convert("RGB"))[None] for data in files)
    with torch.inference_mode():
        return _normalised([model.network.encode_image(image) for image in images])  # type: ignore[operator]


def plain_captions(model: ClipModel, captions: Iterable[str]) -> Floats:
    """Return embeddings of captions (n, dim), as open_clip documents it."""
    tokens = (model.tokenize([caption[:MAX_TEXT_CHARS]]) for caption in captions)
    with torch.inference_mode():
        return _normalised([model.network.encode_text(one) for one in tokens])  # type: ignore[operator]


def _normalised(embeddings: list[torch.Tensor]) -> Floats:
    found: Floats = torch.nn.functional.normalize(torch.cat(embeddings).float(), dim=-1).numpy()
    return found


def main() -> None:
    settings = load_settings().clip
    try:
        path = record(settings)
    except ModelError as error:
        raise SystemExit(str(error)) from error
    found = compare(load_model(settings))
    print(f"{path}: {found}")


if __name__ == "__main__":
    main()
