"""Records the embeddings of the configured CLIP model, for `laion-etl model check` to compare with.

Run it where the weights can be had and are known to be right, by their tag:

    LAION_ETL_CLIP_MODEL=ViT-B-32 LAION_ETL_CLIP_PRETRAINED=openai python -m scripts.record_reference

It uses open_clip's own transform, tokenizer and towers, one input at a time, in fp32 on the CPU: not the code
that is checked with the result.
"""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from laion_etl.score.fixed_inputs import CAPTIONS, fixed_images
from laion_etl.score.model import MAX_TEXT_CHARS, ClipModel, load_model
from laion_etl.score.reference import FOLDER, compare, write
from laion_etl.settings import ClipSettings, load_settings

Floats = NDArray[np.float32]


def record(settings: ClipSettings, folder: Path = FOLDER) -> Path:
    """Write the record of the model of the settings; return its path."""
    model = load_model(replace(settings, device="cpu", precision="fp32"))
    images, captions = plain_embeddings(model)
    name = f"{settings.model}-{Path(settings.pretrained).stem}".replace("/", "-").replace(":", "-")
    return write(folder, name, model.weights_sha256, images, captions)


def plain_embeddings(model: ClipModel) -> tuple[Floats, Floats]:
    """Return embeddings of the fixed images and captions, as open_clip documents it."""
    network = model.network
    with torch.inference_mode():
        images = [
            network.encode_image(model.preprocess(Image.open(io.BytesIO(data)).convert("RGB"))[None])  # type: ignore[operator]
            for data in fixed_images()
        ]
        captions = [
            network.encode_text(model.tokenize([text[:MAX_TEXT_CHARS]]))  # type: ignore[operator]
            for text in CAPTIONS
        ]
    found = [
        torch.nn.functional.normalize(torch.cat(one).float(), dim=-1).numpy() for one in (images, captions)
    ]
    return found[0], found[1]


def main() -> None:
    settings = load_settings().clip
    path = record(settings)
    found = compare(load_model(settings))
    print(f"{path}: {found}")


if __name__ == "__main__":
    main()
