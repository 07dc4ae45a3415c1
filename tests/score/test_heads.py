"""Linear heads: LAION's own files, ours, and invalid files."""

import os
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from laion_etl.core.errors import ModelError
from laion_etl.score.heads import load_anchors, load_head
from laion_etl.score.nsfw_head import load_nsfw_head
from tests.score.test_published_heads import small_head


def test_laions_aesthetic_predictor_loads_and_scores_like_torch(shared_data: Path) -> None:
    path = shared_data / "heads" / "sa_0_4_vit_b_32_linear.pth"
    if not path.is_file():
        pytest.skip("LAION's aesthetic head is not in the folder of real inputs")
    head = load_head(path, 512)
    linear = torch.nn.Linear(512, 1)
    linear.load_state_dict(torch.load(path, weights_only=True))
    images = torch.nn.functional.normalize(torch.randn(20, 512, generator=torch.manual_seed(1)), dim=1)
    expected = linear(images).detach().numpy()[:, 0]
    assert np.allclose(head.score(images.numpy()), expected, atol=1e-4)


def test_a_head_for_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save(torch.nn.Linear(768, 1).state_dict(), path)
    with pytest.raises(ModelError, match=r"768 numbers, the CLIP model makes 512"):
        load_head(path, 512)


@pytest.mark.parametrize("content", [{"weight": torch.zeros(1, 8)}, [1, 2], {"a": 1}, torch.zeros(3)])
def test_a_file_that_is_no_head_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "head.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"not a linear head|it holds no state dict"):
        load_head(path, 8)


@pytest.mark.parametrize(
    "weight",
    [
        pytest.param(torch.ones(1, 8).to_sparse(), id="sparse"),
        pytest.param(torch.ones(1, 8, device="meta"), id="without data"),
        pytest.param(torch.ones(1, 8, dtype=torch.complex64), id="complex"),
    ],
)
def test_tensors_of_another_kind_are_refused(tmp_path: Path, weight: torch.Tensor) -> None:
    path = tmp_path / "head.pth"
    torch.save({"weight": weight, "bias": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="it holds no state dict"):
        load_head(path, 8)
    torch.save({0: torch.ones(1, 8)}, path)
    with pytest.raises(ModelError, match="it holds no state dict"):
        load_head(path, 8)


def test_a_damaged_safetensors_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match=r"cannot read the aesthetic head .*head\.safetensors"):
        load_head(path, 8)


def test_a_head_of_zeros_is_refused_by_the_name_of_its_layer(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save({"weight": torch.zeros(1, 8), "bias": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="weight is all zero, which gives every image the same score"):
        load_head(path, 8)
    network = layered((0, 3, 6, 9, 11), path, torch.nn.ReLU)
    state = torch.load(path, weights_only=True)
    assert isinstance(network[4], torch.nn.Linear)
    torch.save({**state, "layers.6.weight": torch.zeros_like(state["layers.6.weight"])}, path)
    with pytest.raises(ModelError, match=r"layers\.6\.weight is all zero"):
        load_head(path, 8)
    np.save(tmp_path / "texts.npy", np.ones((2, 8), np.float32))
    with pytest.raises(ModelError, match="they are the same but for their lengths"):
        load_anchors(tmp_path / "texts.npy", 8)
    zero = tuple(np.zeros_like(weight) for weight in small_head(8).weights)
    replace(small_head(8), weights=zero).save(tmp_path / "nsfw.safetensors")
    with pytest.raises(ModelError, match=r"0\.weight is all zero"):
        load_nsfw_head(tmp_path / "nsfw.safetensors", 8)


def h14(dim: int, path: Path) -> torch.nn.Module:
    """LAION's NSFW detector for ViT-H/14, its inner layers in small."""
    relu, dropout, linear = torch.nn.ReLU, torch.nn.Dropout, torch.nn.Linear
    torch.manual_seed(3)
    sizes = (dim, 32, 64, 32, 16, 8)
    layers = [m for pair in pairwise(sizes) for m in (linear(*pair), relu(), dropout(0.2))]
    network = torch.nn.Sequential(*layers, linear(8, 4), linear(4, 1))
    network.eval()
    with torch.no_grad():  # so that answers for some images lie on both sides of 0 to 1
        answers = network(images(dim))
        factor = 4 / float(answers.max() - answers.min())
        network[-1].weight.mul_(factor)
        network[-1].bias.mul_(factor).sub_(factor * float(answers.mean())).add_(0.5)
    torch.save({f"layers.{name}": value for name, value in network.state_dict().items()}, path)
    return network


def images(dim: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(60, dim, generator=torch.manual_seed(1)), dim=1)


def test_laions_nsfw_head_for_vit_h_14_is_read_as_it_is(tmp_path: Path) -> None:
    """Trained to answer 0 or 1; what lies outside is cut off."""
    network = h14(48, tmp_path / "h14_nsfw.pth")
    plain = network(images(48)).detach().numpy()[:, 0]
    assert plain.min() < 0
    assert plain.max() > 1
    head = load_nsfw_head(tmp_path / "h14_nsfw.pth", 48)
    assert np.allclose(head.score(images(48).numpy()), np.clip(plain, 0, 1), atol=1e-3)
    with pytest.raises(ModelError, match="it is not for embeddings of 8 numbers"):
        load_nsfw_head(tmp_path / "h14_nsfw.pth", 8)


def test_a_score_that_overflows_is_no_verdict(tmp_path: Path) -> None:
    network = h14(8, tmp_path / "h14_nsfw.pth")
    state = {f"layers.{name}": value.clone() for name, value in network.state_dict().items()}
    state["layers.0.weight"] *= 1e38
    state["layers.3.weight"] *= 1e3
    torch.save(state, tmp_path / "h14_nsfw.pth")
    with np.errstate(over="ignore", invalid="ignore"):
        scores = load_nsfw_head(tmp_path / "h14_nsfw.pth", 8).score(images(8).numpy())
    assert scores.dtype == np.float32
    assert np.isnan(scores).all()


def test_a_head_for_another_purpose_is_refused(tmp_path: Path) -> None:
    h14(8, tmp_path / "nsfw.pth")
    with pytest.raises(ModelError, match=r"what is between its layers \[0, 3, 6, 9, 12, 15, 16\] is unknown"):
        load_head(tmp_path / "nsfw.pth", 8)
    layered((0, 3, 6, 9, 11), tmp_path / "aesthetic.pth", torch.nn.ReLU)
    with pytest.raises(ModelError, match=r"it is not LAION's h14_nsfw\.pth"):
        load_nsfw_head(tmp_path / "aesthetic.pth", 8)
    (tmp_path / "nsfw.zip").write_bytes(b"PK")
    with pytest.raises(ModelError, match="convert-head` on it"):
        load_nsfw_head(tmp_path / "nsfw.zip", 8)


def layered(places: tuple[int, ...], path: Path, activation: type[torch.nn.Module]) -> torch.nn.Module:
    """LAION's predictor v2 in small, saved with its layers at these places."""
    sizes = (8, 16, 8, 4, 3, 1)
    torch.manual_seed(7)
    layers = [torch.nn.Linear(*pair) for pair in pairwise(sizes)]
    state = {
        f"layers.{place}.{name}": value
        for place, layer in zip(places, layers, strict=True)
        for name, value in layer.state_dict().items()
    }
    torch.save(state, path)
    between = [module for layer in layers for module in (layer, activation())]
    return torch.nn.Sequential(*between[:-1])


@pytest.mark.parametrize(
    ("places", "activation"),
    [((0, 2, 4, 6, 7), torch.nn.Identity), ((0, 3, 6, 9, 11), torch.nn.ReLU)],
)
def test_the_places_of_the_layers_say_whether_there_is_a_relu_between_them(
    tmp_path: Path, places: tuple[int, ...], activation: type[torch.nn.Module]
) -> None:
    network = layered(places, tmp_path / "head.pth", activation)
    images = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.manual_seed(1)), dim=1)
    expected = network(images).detach().numpy()[:, 0]
    found = load_head(tmp_path / "head.pth", 8).score(images.numpy())
    assert np.allclose(found, expected, atol=1e-5)
    with pytest.raises(ModelError, match="9"):
        load_head(tmp_path / "head.pth", 9)


def test_layers_with_something_unknown_between_them_are_refused(tmp_path: Path) -> None:
    layered((0, 2, 4, 6, 8), tmp_path / "head.pth", torch.nn.ReLU)
    with pytest.raises(ModelError, match=r"what is between its layers \[0, 2, 4, 6, 8\] is unknown"):
        load_head(tmp_path / "head.pth", 8)


def test_a_missing_or_damaged_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.pth"):
        load_head(tmp_path / "absent.pth", 8)
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match=r"broken\.pth"):
        load_head(tmp_path / "broken.pth", 8)


def test_code_in_a_head_does_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ModelError, match=r"trap\.pth"):
        load_head(tmp_path / "trap.pth", 8)
    assert not (tmp_path / "sprung").exists()
