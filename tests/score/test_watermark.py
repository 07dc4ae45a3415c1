"""Watermark models: the demo's, LAION's architecture, user-defined; and their use by the stage."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laion_etl.core.errors import ModelError, SettingsError
from laion_etl.io.storage import Store
from laion_etl.minicrawl.overlays import watermarked
from laion_etl.minicrawl.scenes import Scene, draw
from laion_etl.score import demo_model
from laion_etl.score.pixels import PixelPlan, Pixels
from laion_etl.score.watermark import laion_network, load_watermark_model, read_watermark_model
from laion_etl.settings import SafetySettings, Settings
from scripts.training.watermark import WatermarkTraining, quality, stored_pixels, train
from tests.score.conftest import TINY_SETTINGS, Entry, fitting, read_parquet, score, write_shard
from tests.score.test_pixels import encoded

SCENE = Scene("red", "star", "meadow", "two")


def named(model: str) -> Settings:
    return replace(TINY_SETTINGS, safety=SafetySettings(watermark_model=model))


def test_the_shipped_model_separates_marked_images_from_others() -> None:
    marked = np.arange(200) % 2 == 1
    pixels = np.stack(
        [stored_pixels(random.Random(f"fresh {n}"), marked=bool(mark)) for n, mark in enumerate(marked)]
    )
    found = quality(read_watermark_model(demo_model.WATERMARK_FILE, "cpu").score(pixels), marked)
    assert found["precision"] > 0.93
    assert found["recall"] > 0.9


def test_training_is_repeatable_and_its_file_is_read(tmp_path: Path) -> None:
    plan = WatermarkTraining(images=64, epochs=1, held_out=8, threads=1)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        train(plan, tmp_path / name)
    one, two = (tmp_path / name / demo_model.WATERMARK_FILE.name for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert read_watermark_model(one, "cpu").plan == PixelPlan(128, squash=True, bilinear=True)


def test_marked_images_of_a_shard_get_a_high_pwatermark(store: Store) -> None:
    rng = random.Random(3)
    plain = draw(SCENE, 300, 280, rng)
    images = [plain, *(watermarked(plain, random.Random(n)) for n in range(4)), plain]
    write_shard(store, [Entry(encoded(p, "JPEG", quality=92), b"two red stars") for p in images])
    score(store)
    found = [row["pwatermark"] for row in read_parquet(store)]
    assert max(found[0], found[5]) < 0.5  # type: ignore[type-var]
    assert sum(value > 0.5 for value in found[1:5]) >= 3  # type: ignore[operator]


def test_the_model_of_laion_is_read_and_its_first_class_is_the_watermark(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = laion_network().eval()
    torch.save(network.state_dict(), tmp_path / "watermark_model_v1.pt")
    model = read_watermark_model(tmp_path / "watermark_model_v1.pt", "cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 256, 256, 3), np.uint8)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        plain = network(((torch.from_numpy(pixels) / 255 - mean) / deviation).permute(0, 3, 1, 2))
    assert model.plan == PixelPlan(256, squash=True, bilinear=True)
    assert np.allclose(model.score(pixels), plain.softmax(dim=1)[:, 0].numpy(), atol=1e-5)
    assert len(model.score(pixels[:0])) == 0


class Redness:
    """A user-defined model: the mean of the red channel."""

    plan = PixelPlan(8)
    identity = "redness 1"

    def score(self, pixels: Pixels) -> np.ndarray:
        return (pixels[..., 0].mean(axis=(1, 2)) / 255).astype(np.float32)


def redness(settings: Settings, device: str) -> Redness:
    assert (settings.safety.watermark_model, device) == (f"{__name__}:redness", "cpu")
    return Redness()


def nothing(settings: Settings, device: str) -> None:
    return None


def test_a_model_of_ones_own_is_asked(store: Store) -> None:
    write_shard(store, [fitting(SCENE), Entry(b"broken", b"two red stars"), fitting(SCENE, seed=2)])
    with_ours = score(store)
    own = score(store, named(f"{__name__}:redness"))
    found = [row["pwatermark"] for row in read_parquet(store)]
    assert found[1] is None
    assert 0.1 < float(str(found[0])) < 0.9
    assert own.fingerprint != with_ours.fingerprint


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("/nowhere/model.pt", ModelError, "cannot read the watermark model"),
        (f"{__name__}:nothing", ModelError, "is not a WatermarkModel"),
        ("no_such_module:factory", SettingsError, "cannot be imported"),
        (str(demo_model.AESTHETIC_FILE), ModelError, "it holds no EfficientNet"),
        (str(demo_model.WEIGHTS_FILE), ModelError, "is not a laion-etl watermark model"),
        (f"{demo_model.WATERMARK_FILE}#sha256={'0' * 64}", ModelError, "is not the expected file"),
        ("~no-such-user/model.pt", ModelError, "No such file"),
    ],
)
def test_what_is_no_model_is_named(model: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_watermark_model(named(model), "cpu")
