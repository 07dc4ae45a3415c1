"""The tiny model's aesthetic head: a fixed rule stands in for human ratings.

The rule is colourfulness (Hasler and Süsstrunk 2003), measured on the image and scaled to
about 1 to 10; a ridge regression then learns it from the CLIP embedding, in the file format of LAION's
aesthetic predictor v1 (the state dict of a torch Linear(dim, 1) on L2-normalised image embeddings).
"""

import random

import numpy as np
import torch
from PIL import Image

from laion_etl.minicrawl.held_out import embed_photos, photo
from laion_etl.minicrawl.scenes import random_scene
from laion_etl.score.model import ClipModel

SCENES = 1_000
HELD_OUT = 300
_RIDGE = 1e-2
_MAX_COLOURFULNESS = 110.0


def rule(image: Image.Image) -> float:
    """Colourfulness of an RGB image from 1 (grey) to 10 (as colourful as scenes get)."""
    red, green, blue = np.moveaxis(np.asarray(image.resize((64, 64)), np.float32), -1, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    offset = np.hypot(red_green.mean(), yellow_blue.mean())
    return 1 + 9 * min(1.0, float(spread + 0.3 * offset) / _MAX_COLOURFULNESS)


def train_head(model: ClipModel, seed: int) -> tuple[dict[str, torch.Tensor], float]:
    """The head's state dict (`weight` (1, dim), `bias` (1)) and its correlation with the rule, held out."""
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(SCENES + HELD_OUT)]
    state = rng.getstate()
    images = embed_photos(model, scenes, rng)
    rng.setstate(state)  # the same photos again, for the rule
    scores = np.asarray([rule(photo(scene, rng)) for scene in scenes], np.float32)
    features = np.hstack([images, np.ones((len(images), 1), np.float32)])
    seen, known = features[:SCENES], scores[:SCENES]
    penalty = _RIDGE * np.eye(features.shape[1], dtype=np.float32)
    solution = np.linalg.solve(seen.T @ seen + penalty, seen.T @ known).astype(np.float32)
    predicted = features[SCENES:] @ solution
    correlation = round(float(np.corrcoef(predicted, scores[SCENES:])[0, 1]), 3)
    state_dict = {"weight": torch.from_numpy(solution[None, :-1]), "bias": torch.from_numpy(solution[-1:])}
    return state_dict, correlation
