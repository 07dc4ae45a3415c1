"""How many cores a GPU needs, by model: a small one finishes a batch before few cores decode the next.

A core prepares about 1,000 images of 256 pixels a second (`python -m benchmarks.score`, way `host`). An H100
takes some 28,000 images a second with ViT-B/32, a quarter of them with ViT-B/16, a twentieth with ViT-L/14;
other GPUs take fewer. These are limits, not requests, so a node with fewer cores can still run the pod.
"""

import re

_BY_MODEL = (
    (re.compile(r"tiny|RN50(-|$)|ViT-(XS|S|Ti)|B-32|B_32|MobileCLIP", re.IGNORECASE), 16),
    (re.compile(r"B-16|B_16|RN101|base", re.IGNORECASE), 8),
)
_OF_LARGE_MODELS = 4


def cores_per_gpu(model: str) -> int:
    """Return the cores that feed a GPU with a CLIP model, known by its name: Airflow has no open_clip."""
    return next((cores for names, cores in _BY_MODEL if names.search(model)), _OF_LARGE_MODELS)
