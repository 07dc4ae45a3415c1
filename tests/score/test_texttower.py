"""Texts encoded without their padding are encoded as open_clip does."""

import numpy as np
import pytest
import torch

from laion_etl.score.model import ClipModel
from laion_etl.score.openclip import create_network, open_clip
from laion_etl.score.text_tower import encode_texts

TEXTS = [
    "",
    "a",
    "a red car",
    "word " * 200,
    "Ein Hund läuft über die Wiese",
    *(f"{'big ' * n}cat" for n in range(90)),
]


def by_open_clip(network: torch.nn.Module, tokens: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(network.encode_text(tokens))  # type: ignore[operator]


def test_the_demo_model(tiny_model: ClipModel) -> None:
    tokens = tiny_model.tokenize(TEXTS)
    expected = by_open_clip(tiny_model.network, tokens)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(tiny_model.embed_texts(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_other_towers(name: str) -> None:
    """A plain one, one that is not causal, and one with a class token: the latter two are left whole."""
    torch.manual_seed(0)
    network = small(name)
    tokens = torch.zeros(6, 12, dtype=torch.long)
    for row, length in enumerate((2, 3, 5, 8, 11, 12)):
        tokens[row, : length - 1] = torch.randint(1, 90, (length - 1,))
        tokens[row, length - 1] = 99
    with torch.inference_mode():
        found = encode_texts(network, tokens.numpy(), "cpu").numpy()
    assert np.allclose(found, by_open_clip(network, tokens), atol=1e-5)


def small(name: str) -> torch.nn.Module:
    """The architecture with few and narrow layers."""
    config = open_clip().get_model_config(name)
    config["vision_cfg"] |= {"image_size": 32, "layers": [1, 1, 1, 1] if name == "RN50" else 1, "width": 64}
    config["vision_cfg"].pop("timm_model_name", None)
    config["text_cfg"] |= {"context_length": 12, "vocab_size": 100, "width": 64, "heads": 1, "layers": 2}
    config["text_cfg"].pop("hf_tokenizer_name", None)
    assert create_network  # makes torchvision importable
    if "multimodal_cfg" in config:
        from open_clip.coca_model import CoCa

        config["multimodal_cfg"] |= {
            "context_length": 12,
            "vocab_size": 100,
            "width": 64,
            "heads": 1,
            "layers": 1,
        }
        config.pop("custom_text", None)
        return CoCa(**config).eval()
    from open_clip.model import CLIP, CustomTextCLIP

    custom = config.pop("custom_text", False)
    config.pop("init_logit_bias", None)
    return (CustomTextCLIP if custom else CLIP)(**config).eval()
