"""Heads as others published them: the values of the plain formula, and refusal of anything else."""

import hashlib
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import ModelError
from laion_etl.io.storage import Store
from laion_etl.score.heads import checked_file, load_anchors, load_head
from laion_etl.score.keras_head import read_keras_head
from laion_etl.score.nsfw_head import DenseHead, load_nsfw_head
from laion_etl.score.scorer import load_scorer
from laion_etl.score.tf_checkpoint import BundleError, read_bundle
from laion_etl.settings import SafetySettings
from tests.score.conftest import CRAWL, TINY_SETTINGS, fitting, read_parquet, score, write_shard
from tests.score.test_stage import STAR


def head_file(shared_data: Path, name: str) -> Path:
    path = shared_data / "heads" / name
    if not path.is_file():
        pytest.skip(f"{name} is not in the folder of real inputs")
    return path


def embeddings(count: int, dim: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=torch.manual_seed(2)), dim=1)


def test_the_aesthetic_predictor_v2_gives_the_values_of_its_layers(shared_data: Path) -> None:
    path = head_file(shared_data, "sac+logos+ava1-l14-linearMSE.pth")
    state = torch.load(path, map_location="cpu", weights_only=True)
    values = images = embeddings(30, 768)
    for place in (0, 2, 4, 6, 7):
        values = torch.nn.functional.linear(
            values, state[f"layers.{place}.weight"], state[f"layers.{place}.bias"]
        )
    assert np.allclose(load_head(path, 768).score(images.numpy()), values[:, 0].numpy(), atol=1e-3)


@pytest.mark.parametrize(("model", "dim"), [("b_32", 512), ("l_14", 768)])
def test_violence_is_the_nearer_of_two_texts(shared_data: Path, model: str, dim: int) -> None:
    path = head_file(shared_data, f"violence_detection_vit_{model}.npy")
    texts = np.load(path).astype(np.float32)
    images = embeddings(30, dim).numpy()
    expected = torch.softmax(100 * torch.from_numpy(images @ texts.T), dim=1)[:, 1].numpy()
    found = load_anchors(path, dim).score(images)
    assert ((found > 0.5) == (np.argmax(images @ texts.T, axis=1) == 1)).all()
    assert np.allclose(found, expected, atol=0.02)  # theirs are normalised up to rounding


def test_the_nsfw_head_is_that_of_the_keras_model(shared_data: Path, tmp_path: Path) -> None:
    source = head_file(shared_data, "clip_autokeras_nsfw_b32.zip")
    head = read_keras_head(source)
    assert [weight.shape for weight in head.weights] == [(512, 32), (32, 32), (32, 1)]
    assert {column: len(table) for column, table in head.tables.items()} == {92: 1566, 133: 747, 312: 745}
    # The normalisation was fitted on the columns as looked up: their means are numbers of categories.
    for column, table in head.tables.items():
        assert sorted(table.values()) == list(range(1, len(table) + 1))
        assert 1 < head.mean[column] < len(table)
    images = embeddings(40, 512).numpy()
    images[0, 92] = -0.5625  # the most frequent number of that column
    expected = [plain_formula(head, image) for image in images]
    assert np.allclose(head.score(images), expected, atol=1e-4)
    result = CliRunner().invoke(
        app, ["model", "convert-head", str(source), str(tmp_path / "nsfw.safetensors")]
    )
    assert result.exit_code == 0, result.output
    converted = load_nsfw_head(tmp_path / "nsfw.safetensors", 512)
    assert converted.identity == head.identity
    assert (converted.score(images) == head.score(images)).all()


def plain_formula(head: DenseHead, image: np.ndarray) -> float:
    """One number after the other, as the Keras layers are documented."""
    x = [float(value) for value in image.astype(np.float16)]
    for column, table in head.tables.items():
        x[column] = float(table.get(f"{x[column]:.6f}", 0))
    x = [(v - m) / max(s**0.5, 1e-7) for v, m, s in zip(x, head.mean, head.variance, strict=True)]
    for number, (weight, bias) in enumerate(zip(head.weights, head.biases, strict=True)):
        x = [
            sum(v * w for v, w in zip(x, column, strict=True)) + b
            for column, b in zip(weight.T, bias, strict=True)
        ]
        if number < len(head.weights) - 1:
            x = [max(v, 0.0) for v in x]
    return float(1 / (1 + np.exp(-x[0])))


def small_head(dim: int) -> DenseHead:
    rng = np.random.default_rng(1)
    return DenseHead(
        mean=np.zeros(dim, np.float32),
        variance=np.ones(dim, np.float32),
        weights=(rng.normal(size=(dim, 4)).astype(np.float32), rng.normal(size=(4, 1)).astype(np.float32)),
        biases=(np.zeros(4, np.float32), np.zeros(1, np.float32)),
        tables={1: {"0.500000": 1}},
    )


def test_heads_give_the_columns_of_a_scored_shard(store: Store, tmp_path: Path) -> None:
    dim = load_scorer(TINY_SETTINGS).model.dim
    small_head(dim).save(tmp_path / "nsfw.safetensors")
    np.save(tmp_path / "violence.npy", embeddings(2, dim).numpy())
    safety = SafetySettings(
        nsfw_head=str(tmp_path / "nsfw.safetensors"), violence_head=str(tmp_path / "violence.npy")
    )
    write_shard(store, [fitting(STAR)])
    score(store)
    [without] = read_parquet(store)
    score(store, replace(TINY_SETTINGS, safety=safety))
    [row] = read_parquet(store)
    with store.open(f"scored/{CRAWL}/000000003_img_emb.npy") as file:
        image = np.frombuffer(file.read()[-2 * dim :], np.float16).astype(np.float32)[None]
    assert np.isclose(row["punsafe"], small_head(dim).score(image)[0], atol=1e-2)
    violence = load_anchors(tmp_path / "violence.npy", dim)
    assert np.isclose(row["pviolence"], violence.score(image)[0], atol=1e-2)
    assert row["punsafe"] != without["punsafe"]
    assert row["nsfw_tag"] == without["nsfw_tag"]


def test_a_trained_head_that_finds_an_image_unsafe_drops_a_suspected_minor(
    store: Store, tmp_path: Path
) -> None:
    """Whatever the zero-shot tag says: here it is UNLIKELY."""
    dim = load_scorer(TINY_SETTINGS).model.dim
    sure = replace(small_head(dim), biases=(np.zeros(4, np.float32), np.full(1, 50, np.float32)))
    sure.save(tmp_path / "sure.safetensors")
    entry = fitting(STAR)
    suspect = replace(entry, text=(entry.text or b"") + b", a toy of schoolgirls")
    write_shard(store, [entry, suspect])
    assert score(store).kept == 2
    safety = SafetySettings(nsfw_head=str(tmp_path / "sure.safetensors"), drop_punsafe=0.99)
    stats = score(store, replace(TINY_SETTINGS, safety=safety))
    assert (stats.kept, stats.dropped) == (1, {"suspected_underage": 1})
    rows = read_parquet(store)
    assert [(row["nsfw_tag"], row["reason"]) for row in rows] == [
        ("UNLIKELY", None),
        ("UNLIKELY", "suspected_underage"),
    ]
    assert "suspected_underage" not in rows[0]
    low = replace(small_head(dim), biases=(np.zeros(4, np.float32), np.full(1, -50, np.float32)))
    low.save(tmp_path / "low.safetensors")
    safety = SafetySettings(nsfw_head=str(tmp_path / "low.safetensors"), drop_punsafe=0.99)
    assert score(store, replace(TINY_SETTINGS, safety=safety)).kept == 2


def test_a_head_with_other_bytes_than_named_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.npy"
    path.write_bytes(b"bytes")
    right = hashlib.sha256(b"bytes").hexdigest()
    assert checked_file(f"{path}#sha256={right}") == path
    assert checked_file(str(path)) == path
    with pytest.raises(ModelError, match=f"its SHA-256 is {right}"):
        checked_file(f"{path}#sha256={'0' * 64}")
    with pytest.raises(ModelError, match="cannot read the head"):
        checked_file(f"{tmp_path / 'absent'}#sha256={right}")


@pytest.mark.parametrize("digest", ["", "00", "0" * 63, "g" * 64, "٠" * 64])
def test_a_digest_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    """An empty one must not mean that any file will do."""
    with pytest.raises(ModelError, match="is not a SHA-256; write its 64 digits"):
        checked_file(f"{tmp_path / 'head.npy'}#sha256={digest}")


def test_text_embeddings_of_another_model_or_with_code_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((3, 8), np.float32))
    with pytest.raises(ModelError, match=r"of the shape \(3, 8\), not two text embeddings of 8"):
        load_anchors(tmp_path / "three.npy", 8)
    np.save(tmp_path / "code.npy", np.asarray([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ModelError, match="cannot read the text embeddings"):
        load_anchors(tmp_path / "code.npy", 8)


def test_an_nsfw_head_that_is_none_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "head.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(ModelError, match="not a laion-etl NSFW head"):
        load_nsfw_head(path, 8)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot read the NSFW head"):
        load_nsfw_head(path, 8)
    small_head(8).save(path)
    with pytest.raises(ModelError, match="8 numbers, the CLIP model makes 512"):
        load_nsfw_head(path, 512)
    broken = replace(small_head(8), weights=small_head(8).weights[::-1])
    broken.save(path)
    with pytest.raises(ModelError, match="do not fit together"):
        load_nsfw_head(path, 8)


def test_a_keras_model_of_another_kind_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot read the Keras model"):
        read_keras_head(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/saved_model.pb", b"")
    with pytest.raises(ModelError, match="cannot read the Keras model"):
        read_keras_head(path)


def test_damage_anywhere_in_a_checkpoint_is_an_error_or_harmless(shared_data: Path) -> None:
    with zipfile.ZipFile(head_file(shared_data, "clip_autokeras_nsfw_b32.zip")) as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist()}
        index = archive.read(names["variables.index"])
        data = archive.read(names["variables.data-00000-of-00001"])
    assert len(read_bundle(index, data)) > 8
    for place in range(len(index)):
        for value in (0, 127, 255):
            damaged = index[:place] + bytes([value]) + index[place + 1 :]
            try:
                read_bundle(damaged, data)
            except BundleError:
                continue
    with pytest.raises(BundleError, match="outside of its data"):
        read_bundle(index, data[:1_000])
    with pytest.raises(BundleError, match="not a table"):
        read_bundle(index[:-8] + struct.pack("<Q", 1), data)


def checkpoint_index(entries: bytes) -> bytes:
    """The index of a checkpoint with one block of entries."""

    def block(content: bytes) -> bytes:
        return content + struct.pack("<I", 0) + bytes(5)  # no restarts; not compressed, no checksum

    def handle(start: int, size: int) -> bytes:
        return b"".join(struct.pack("<3B", n & 127 | 128, n >> 7 & 127 | 128, n >> 14) for n in (start, size))

    first = block(entries)
    last = block(b"\0\1\6k" + handle(0, len(first) - 5))
    footer = handle(0, 0) + handle(len(first), len(last) - 5)
    return first + last + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def test_an_index_that_repeats_a_long_key_is_refused() -> None:
    """Each entry of three bytes and a value would take the memory of the whole key."""
    tensor = b"\x08\1"  # a number without dimensions
    long_key = struct.pack("<4B", 0, 128 | 5_000 & 127, 5_000 >> 7, len(tensor)) + b"k" * 5_000 + tensor
    with pytest.raises(BundleError, match="an entry of the checkpoint's index is too long"):
        read_bundle(checkpoint_index(long_key), b"")


@pytest.mark.parametrize("dimensions", [[0, 1 << 62], [1] * 65])
def test_shapes_that_numpy_does_not_have_are_refused(dimensions: list[int]) -> None:
    shape = b""
    for size in dimensions:
        number = b"\x08" + bytes([size]) if size < 128 else b"\x08" + b"\x80" * 8 + b"\x40"
        shape += bytes([0x12, len(number)]) + number
    count = 0 if 0 in dimensions else 4
    tensor = b"\x08\1\x12" + struct.pack("<2B", 128 | len(shape) & 127, len(shape) >> 7) + shape
    tensor += bytes([0x28, count])
    entry = struct.pack("<4B", 0, 1, 128 | len(tensor) & 127, len(tensor) >> 7) + b"k" + tensor
    with pytest.raises(BundleError, match="is damaged"):
        read_bundle(checkpoint_index(entry), bytes(4))
