"""Heads that are well-formed files with odd content: each is refused in one line, before it is used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from laion_etl.core.errors import ModelError
from laion_etl.score.heads import load_anchors, load_head
from laion_etl.score.nsfw_head import load_nsfw_head

Arrays = dict[str, NDArray[np.generic]]
KEYS = np.array([1, 2])
GOOD: Arrays = {
    "mean": np.zeros(4, np.float32),
    "variance": np.ones(4, np.float32),
    "0.weight": np.ones((4, 1), np.float32),
    "0.bias": np.zeros(1, np.float32),
}


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"table.9.keys": KEYS, "table.9.values": KEYS}, "not for one of 4 numbers"),
        ({"table.-1.keys": KEYS, "table.-1.values": KEYS}, "not for one of 4 numbers"),
        ({"table.1.keys": np.ones((2, 2), int), "table.1.values": KEYS}, "not a row of whole numbers"),
        ({"table.1.keys": KEYS, "table.1.values": np.array(1)}, "not a row of whole numbers"),
        ({"table.1.keys": KEYS, "table.1.values": np.array([1.5, 1e30])}, "not a row of whole numbers"),
        ({"mean": np.zeros((4, 2)), "variance": np.ones((4, 2))}, "not a row of numbers"),
        ({"mean": np.array(1.0)}, "not a row of numbers"),
        ({"0.bias": np.array(1.0)}, "not a row of numbers"),
        ({"0.bias": np.zeros((1, 3))}, "not a row of numbers"),
        ({"0.weight": np.ones((4, 1), np.int8)}, "0.weight does not hold floating-point numbers"),
        ({"mean": np.zeros(4, bool)}, "mean does not hold floating-point numbers"),
        ({"0.weight": np.full((4, 1), 1e300)}, "0.weight has values that are not finite"),
        ({"variance": np.full(4, 1e300)}, "variance has values that are not finite"),
    ],
)
def test_a_dense_head_of_another_shape_or_with_numbers_too_large_is_refused(
    tmp_path: Path, change: Arrays, cause: str
) -> None:
    path = tmp_path / "head.safetensors"
    save_file(GOOD, path, {"format": "laion-etl-dense-head"})
    assert load_nsfw_head(path, 4).score(np.eye(4, dtype=np.float32)).shape == (4,)
    save_file(GOOD | change, path, {"format": "laion-etl-dense-head"})
    with pytest.raises(ModelError, match=cause):
        load_nsfw_head(path, 4)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ({"weight": torch.ones(()), "bias": torch.ones(1)}, "embeddings of 1 numbers"),
        ({"weight": torch.ones(1).expand(1, 1 << 40), "bias": torch.ones(1)}, "it holds no state dict"),
        ({"layers.0.weight": torch.ones(1, 4), "layers.0.bias": torch.ones(())}, "it is not for embeddings"),
        (
            {"layers.0.weight": torch.ones(1, 4), "layers.0.bias": torch.ones(1, 1)},
            "it is not for embeddings",
        ),
        ({f"layers.{'9' * 5000}.{part}": torch.ones(1) for part in ("weight", "bias")}, "not a linear head"),
        (
            {
                "layers.0.weight": torch.full((4, 4), 3e38),
                "layers.0.bias": torch.ones(4),
                "layers.1.weight": torch.full((1, 4), 3e38),
                "layers.1.bias": torch.ones(1),
            },
            "the product of its layers has values that are not finite",
        ),
    ],
    ids=["no dimension", "a view of 4 TB", "bias 0-d", "bias 2-d", "long number", "product"],
)
def test_a_state_of_another_shape_or_with_numbers_too_large_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor], cause: str
) -> None:
    path = tmp_path / "head.pth"
    torch.save(state, path)
    with pytest.raises(ModelError, match=cause):
        load_head(path, 4)


def test_a_small_file_that_announces_terabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "anchors.npy"
    header = np.lib.format.header_data_from_array_1_0(np.zeros((2, 4), np.float32))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (1 << 40,)})
    with pytest.raises(ModelError, match="cannot read the text embeddings"):
        load_anchors(path, 4)


def test_parameters_are_a_state_too(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.save({"weight": torch.nn.Parameter(weight), "bias": torch.nn.Parameter(torch.ones(1))}, path)
    assert load_head(path, 4).score(np.eye(4, dtype=np.float32)).tolist() == [2, 3, 4, 5]


def test_a_quantised_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save({"weight": torch.ones((1, 4), dtype=torch.int8), "bias": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="weight does not hold floating-point numbers"):
        load_head(path, 4)
