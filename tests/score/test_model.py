"""Loading CLIP: names, files and tags; errors in one line; never any pickled code."""

import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from laion_etl.core.errors import ModelError
from laion_etl.score.demo_model import WEIGHTS_FILE
from laion_etl.score.model import MAX_TEXT_CHARS, ClipModel, load_model
from laion_etl.score.openclip import create_network, open_clip
from laion_etl.settings import ClipSettings
from tests.score.conftest import TINY


def refused(settings: ClipSettings) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(settings)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("vit-b32", "ViT-B-32"), ("laion-tiny", "laion-etl-tiny"), ("ViT-H14", "ViT-H-14")],
)
def test_a_wrong_model_name_lists_close_ones(name: str, suggestion: str) -> None:
    message = refused(ClipSettings(model=name))
    assert repr(name) in message
    assert suggestion in message


def test_unknown_weights_list_the_known_ones() -> None:
    message = refused(ClipSettings(model="ViT-B-32", pretrained="openia"))
    assert "'openia'" in message
    assert "did you mean openai" in message
    assert "laion2b_s34b_b79k" in message
    assert "scenes" in refused(replace(TINY, pretrained="scene"))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is unreachable and its cache empty. Its library reads the environment only at import."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
def test_weights_that_cannot_be_downloaded_name_the_way_out() -> None:
    message = refused(ClipSettings(model="ViT-B-32", pretrained="openai", device="cpu"))
    assert "cannot download the weights 'openai' of ViT-B-32" in message
    assert "LAION_ETL_CLIP_PRETRAINED to a checkpoint file and LAION_ETL_CLIP_QUICK_GELU=yes" in message


def test_a_device_that_is_not_there_is_named() -> None:
    assert "'cuda:77'" in refused(replace(TINY, device="cuda:77"))


def test_a_cpu_by_its_number_is_the_cpu() -> None:
    """Its parts and threads give the same bytes."""
    assert load_model(replace(TINY, device="cpu:0")).device == "cpu"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(WEIGHTS_FILE.read_bytes()[:5_000])
    assert str(path) in refused(replace(TINY, pretrained=str(path)))


def test_a_checkpoint_of_another_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"visual.conv1.weight": torch.zeros(3)}, path)
    assert str(path) in refused(replace(TINY, pretrained=str(path)))


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(b"x")
    assert "is not a checkpoint" in refused(replace(TINY, pretrained=str(path)))


@pytest.mark.usefixtures("offline")
def test_a_model_that_needs_what_is_not_here_says_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"")
    message = refused(ClipSettings(model="xlm-roberta-base-ViT-B-32", pretrained=str(path)))
    assert "cannot build the CLIP model xlm-roberta-base-ViT-B-32" in message


def test_torchscript_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    message = refused(replace(TINY, pretrained=str(path)))
    assert str(path) in message
    assert "use the tag openai, or a file of these weights from the hub" in message


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_for_images_of_another_size_are_refused(tmp_path: Path, suffix: str) -> None:
    """open_clip would silently interpolate the positions."""
    config = open_clip().get_model_config(TINY.model)
    config["vision_cfg"]["image_size"] //= 2
    (tmp_path / "half-size.json").write_text(json.dumps(config))
    open_clip().add_model_config(tmp_path / "half-size.json")
    path = tmp_path / f"weights{suffix}"
    state = {name: value.clone() for name, value in create_network("half-size").state_dict().items()}
    torch.save({"state_dict": state}, path) if suffix == ".pt" else save_file(state, path)
    message = refused(replace(TINY, pretrained=str(path)))
    assert "it was trained on images of 4 patches, laion-etl-tiny takes 16" in message
    assert load_model(replace(TINY, model="half-size", pretrained=str(path))).pixel_plan.side == 32


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_for_texts_of_another_length_are_refused(tmp_path: Path, suffix: str) -> None:
    """open_clip would silently interpolate the positions."""
    config = open_clip().get_model_config(TINY.model)
    config["text_cfg"]["context_length"] = 64
    (tmp_path / "short-texts.json").write_text(json.dumps(config))
    open_clip().add_model_config(tmp_path / "short-texts.json")
    path = tmp_path / f"weights{suffix}"
    state = {name: value.clone() for name, value in create_network("short-texts").state_dict().items()}
    torch.save(state, path) if suffix == ".pt" else save_file(state, path)
    message = refused(replace(TINY, pretrained=str(path)))
    assert "it was trained on texts of up to 64 tokens, laion-etl-tiny takes 77" in message
    assert load_model(replace(TINY, model="short-texts", pretrained=str(path))).identity["context"] == 64


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        (["visual.conv1.weight"], "images"),
        (["token_embedding.weight", "positional_embedding"], "texts"),
        (["token_embedding.weight"], "texts"),
    ],
)
def test_a_tower_that_cannot_tell_inputs_apart_is_refused(
    tiny_model: ClipModel, tmp_path: Path, weights: list[str], what: str
) -> None:
    state = {name: value.clone() for name, value in tiny_model.network.state_dict().items()}
    for weight in weights:
        state[weight].zero_()
    torch.save(state, tmp_path / "same.pt")
    message = refused(replace(TINY, pretrained=str(tmp_path / "same.pt")))
    assert f"its embeddings of different {what} are the same" in message


def test_weights_that_are_integers_are_refused(tiny_model: ClipModel, tmp_path: Path) -> None:
    """torch would convert them, without their scale."""
    state = dict(tiny_model.network.state_dict())
    state["text_projection"] = (state["text_projection"] * 100).to(torch.int8)
    torch.save(state, tmp_path / "quantised.pt")
    message = refused(replace(TINY, pretrained=str(tmp_path / "quantised.pt")))
    assert "text_projection does not hold floating-point numbers" in message


def test_the_older_format_of_torch_is_checked_too(tiny_model: ClipModel, tmp_path: Path) -> None:
    """Such a file cannot be mapped into memory."""
    path = tmp_path / "older.pt"
    state = dict(tiny_model.network.state_dict())
    state["positional_embedding"] = state["positional_embedding"][:64].clone()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert "it was trained on texts of up to 64 tokens" in refused(replace(TINY, pretrained=str(path)))
    state["positional_embedding"] = torch.tensor(1.0)
    torch.save(state, path)
    assert str(path) in refused(replace(TINY, pretrained=str(path)))


def test_other_tokens_are_another_identity(tiny_model: ClipModel) -> None:
    """A tokenizer is a file of a folder or of the hub, which weights do not show."""

    def shouted(texts: Sequence[str]) -> torch.Tensor:
        return tiny_model.tokenize([f"{text}!" for text in texts])

    assert replace(tiny_model, tokenize=shouted).identity != tiny_model.identity
    assert tiny_model.identity["context"] == 77


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = tmp_path / "trap.pt"
    path.write_bytes(pickle.dumps({"state_dict": Trap()}, protocol=2))
    assert str(path) in refused(replace(TINY, pretrained=str(path)))
    torch.save({"state_dict": Trap()}, path)
    assert str(path) in refused(replace(TINY, pretrained=str(path)))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_plain_open_clip_checkpoint_file_loads(tmp_path: Path, suffix: str, tiny_model: ClipModel) -> None:
    path = tmp_path / f"plain{suffix}"
    state = {name: value.clone() for name, value in tiny_model.network.state_dict().items()}
    if suffix == ".pt":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        save_file(state, path)
    found = load_model(replace(TINY, pretrained=str(path)))
    assert found.weights_sha256 == tiny_model.weights_sha256
    assert not found.is_tiny


def test_openai_weights_get_their_activation() -> None:
    """open_clip itself only warns that ViT-B-32 with openai's weights needs QuickGELU."""
    from laion_etl.score.weights import build_network, tag_config
    from laion_etl.score.weights_origin import function_of

    settings = ClipSettings(model="ViT-B-32", pretrained="openai")
    tag = tag_config(settings)
    network = build_network(TINY.model, function_of(settings, Path("unused"), tag))
    assert type(network.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    plain = create_network(TINY.model)
    assert type(plain.transformer.resblocks[0].mlp.gelu).__name__ == "GELU"


def test_embeddings_are_unit_vectors_and_the_same_each_time(tiny_model: ClipModel) -> None:
    texts = ["a photo of a red star on a sandy beach", "", "日本語", "x" * 50_000]
    first, again = tiny_model.embed_texts(texts), tiny_model.embed_texts(texts)
    assert first.dtype == np.float32
    assert first.shape == (4, tiny_model.dim)
    assert np.array_equal(first, again)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)


def test_text_beyond_the_limit_does_not_matter(tiny_model: ClipModel) -> None:
    start = "red star " * (MAX_TEXT_CHARS // 9 + 1)
    first, second = tiny_model.embed_texts([start + " one end", start + " and another"])
    assert np.array_equal(first, second)
