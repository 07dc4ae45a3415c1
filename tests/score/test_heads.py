"""Linear heads: LAION's own files, ours, and invalid files."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from laion_etl.core.errors import ModelError
from laion_etl.score.heads import load_head


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
    with pytest.raises(ModelError, match="not a linear head"):
        load_head(path, 8)


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
