"""Trains the demo's watermark model: `python -m scripts.training.watermark`.

Drawn scenes with and without watermarks (overlays.py), as the downloader would store them, squashed to 128
pixels. Seeded; minutes on two cores. Writes the weights, and measurements on fresh scenes, to score/models.
"""

import io
import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch.nn import functional

from laion_etl.minicrawl.overlays import watermarked
from laion_etl.minicrawl.scenes import draw, random_scene
from laion_etl.score import demo_model
from laion_etl.score.pixels import PixelPlan, load_pixels
from laion_etl.score.watermark import read_watermark_model, save_ours, small_network

log = logging.getLogger(__name__)

SIDE = 128
CHANNELS = (16, 32, 64, 96)
PLAN = PixelPlan(SIDE, squash=True, bilinear=True)

Pixels = NDArray[np.uint8]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class WatermarkTraining:
    """The settings of one training."""

    seed: int = 40_961
    images: int = 8_000
    epochs: int = 10
    batch: int = 64
    learning_rate: float = 3e-3
    held_out: int = 1_000
    threads: int = 2


def train(plan: WatermarkTraining, folder: Path) -> None:
    """Trains, measures and writes weights and metadata to the folder."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    network = small_network(CHANNELS)
    _fit(network, *render(plan.images, plan.seed, plan.threads), plan)
    path = folder / demo_model.WATERMARK_FILE.name
    save_ours(network, SIDE, path)
    pixels, marked = render(plan.held_out, plan.seed + 1, plan.threads)
    found = quality(read_watermark_model(path, "cpu").score(pixels), marked)
    document = {"plan": asdict(plan), "side": SIDE, "channels": CHANNELS, "held_out": found}
    path.with_suffix(".metadata.json").write_text(json.dumps(document, indent=1) + "\n")
    log.info("%s", json.dumps(found))


def quality(scores: NDArray[np.float32], marked: Labels) -> dict[str, float]:
    """Precision and recall of 0.5 and above."""
    called = scores >= 0.5
    right = int((called & marked).sum())
    return {
        "precision": round(right / max(1, int(called.sum())), 4),
        "recall": round(right / max(1, int(marked.sum())), 4),
    }


def render(count: int, seed: int, processes: int) -> tuple[Pixels, Labels]:
    """Pixels (count, SIDE, SIDE, 3) of scenes, half of them with a watermark, and the labels."""
    jobs = [range(start, min(start + 250, count)) for start in range(0, count, 250)]
    marked = np.arange(count) % 2 == 1
    if len(jobs) == 1:  # a process takes longer to start
        return _render(jobs[0], seed), marked
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return np.concatenate(list(pool.map(_render, jobs, [seed] * len(jobs)))), marked


def _render(numbers: Sequence[int], seed: int) -> Pixels:
    return np.stack([stored_pixels(random.Random(f"{seed} {n}"), marked=n % 2 == 1) for n in numbers])


def stored_pixels(rng: random.Random, *, marked: bool) -> Pixels:
    """A scene of any size and quality, scaled to 256 pixels as the downloader does, as the model sees it."""
    width, height = rng.randint(180, 480), rng.randint(180, 480)
    image = draw(random_scene(rng), width, height, rng)
    if marked:
        image = watermarked(image, rng)
    shrink = 256 / min(image.size)
    if shrink < 1:
        image = image.resize((round(width * shrink), round(height * shrink)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(72, 95))
    [pixels] = load_pixels(file.getvalue(), "jpg", [PLAN]) or [np.empty(0, np.uint8)]
    return pixels


def _fit(network: torch.nn.Module, pixels: Pixels, marked: Labels, plan: WatermarkTraining) -> None:
    mean, deviation = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    images, labels = torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(~marked).long()
    optimizer = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=0.01)
    steps = plan.epochs * (len(labels) // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.learning_rate, total_steps=steps)
    network.train()
    for epoch in range(plan.epochs):
        whole = torch.randperm(len(labels))[: len(labels) // plan.batch * plan.batch]
        for chosen in whole.reshape(-1, plan.batch):
            shown = (images[chosen].float() / 255 - mean) / deviation
            flipped = torch.rand(len(chosen), 1, 1, 1) < 0.5  # mirrored lettering is still a watermark
            loss = functional.cross_entropy(
                network(torch.where(flipped, shown.flip(-1), shown)), labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        log.info("epoch %d of %d: loss %.3f", epoch + 1, plan.epochs, loss.item())
    network.eval()


DEFAULT = WatermarkTraining()


def main(
    seed: Annotated[int, typer.Option(help="Same seed, same data and order.")] = DEFAULT.seed,
    images: Annotated[int, typer.Option(help="Images drawn.")] = DEFAULT.images,
    epochs: Annotated[int, typer.Option(help="Times each is shown.")] = DEFAULT.epochs,
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = demo_model.MODELS,
) -> None:
    """Train the demo's watermark model on drawn images and write its files to laion_etl/score/models."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(WatermarkTraining(seed=seed, images=images, epochs=epochs), folder)


if __name__ == "__main__":
    typer.run(main)
