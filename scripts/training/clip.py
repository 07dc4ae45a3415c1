"""Trains the demo's CLIP from drawn scenes: `python -m scripts.training.clip`.

Writes weights, metadata and the aesthetic head to laion_etl/score/models. Seeded; minutes on two cores.

The loss is CLIP's, with two additions that make minutes enough: equal scenes in a batch share their
target, and both towers also name colour, shape, background and layout through shared linear classifiers.
Words outside the scenes all share one "unknown" token row; texts made of it are extra negatives,
so that "click here" fits no image.
"""

import json
import logging
import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional

from laion_etl.minicrawl.aesthetic import train_head
from laion_etl.minicrawl.held_out import calibrate, embed_photos, photo, quality, similarities
from laion_etl.minicrawl.scenes import LANGUAGES, Scene, random_scene
from laion_etl.score import demo_model
from laion_etl.score.model import ClipModel, load_model, preprocessing
from laion_etl.score.openclip import create_network
from laion_etl.score.text_tower import encode_causal
from laion_etl.settings import ClipSettings
from scripts.training.captions import CLASSES, CaptionTable, attributes

log = logging.getLogger(__name__)

HAZARD_SHARE = 0.1  # more than in the crawl: the sign must be learned from fewer images
UNKNOWN_TEXTS = 32  # per step


@dataclass(frozen=True, slots=True)
class ClipTraining:
    """The settings of one training."""

    seed: int = 20_221
    images: int = 10_000
    steps: int = 320
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 40
    threads: int = 2
    held_out: int = 1_000


def train(plan: ClipTraining, folder: Path) -> None:
    """Trains, calibrates, measures and writes weights, metadata and aesthetic head to the folder."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    network = create_network(demo_model.NAME)
    scenes, pixels = render(plan)
    texts = CaptionTable()
    _fit(network, scenes, pixels, texts, plan)
    weights = folder / demo_model.WEIGHTS_FILE.name
    save_file(demo_model.compact(network.state_dict(), texts.seen), weights)
    model = load_model(ClipSettings(model=demo_model.NAME, pretrained=str(weights), device="cpu"))
    head, correlation = train_head(model, plan.seed + 3)
    torch.save(head, folder / demo_model.AESTHETIC_FILE.name)
    metadata = {
        "config": json.loads(demo_model.CONFIG_FILE.read_text()),
        "plan": asdict(plan),
        "languages": LANGUAGES,
        **evaluate(model, plan),
        "aesthetic": {"rule": "colourfulness on a scale of 1 to 10", "held_out_correlation": correlation},
    }
    (folder / demo_model.METADATA_FILE.name).write_text(json.dumps(metadata, indent=1) + "\n")
    log.info("%s", json.dumps(metadata["measured"]))


def evaluate(model: ClipModel, plan: ClipTraining) -> dict[str, Any]:
    """Thresholds from one held-out set, precision and recall from another."""
    groups = {"en": ("en",), "other": tuple(language for language in LANGUAGES if language != "en")}
    found = {}
    for purpose, seed in (("calibrate", plan.seed + 1), ("measure", plan.seed + 2)):
        rng = random.Random(seed)
        scenes = [random_scene(rng) for _ in range(plan.held_out)]
        images = embed_photos(model, scenes, rng)
        for group, languages in groups.items():
            found[purpose, group] = similarities(model, scenes, images, languages, rng)
    thresholds = {group: calibrate(found["calibrate", group]) for group in groups}
    measured = {
        group: {
            **{
                k: round(v, 4) for k, v in asdict(quality(found["measure", group], thresholds[group])).items()
            },
            "matching_mean": round(float(found["measure", group].matching.mean()), 3),
            "mismatching_mean": round(float(found["measure", group].mismatching.mean()), 3),
        }
        for group in groups
    }
    return {
        "thresholds": {f"threshold_{group}": value for group, value in thresholds.items()},
        "measured": measured,
    }


# Images


def render(plan: ClipTraining) -> tuple[list[Scene], torch.Tensor]:
    """Training scenes and their preprocessed images, float16 (n, 3, side, side)."""
    rng = random.Random(plan.seed)
    scenes = [_training_scene(rng) for _ in range(plan.images)]
    jobs = [(scene, plan.seed * 1_000_003 + i) for i, scene in enumerate(scenes)]
    chunks = [jobs[start : start + 500] for start in range(0, len(jobs), 500)]
    if len(chunks) == 1:  # a process takes longer to start
        return scenes, torch.from_numpy(_render_chunk(jobs))
    with ProcessPoolExecutor(plan.threads, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        pixels = np.concatenate(list(pool.map(_render_chunk, chunks)))
    return scenes, torch.from_numpy(pixels)


def _training_scene(rng: random.Random) -> Scene:
    scene = random_scene(rng)
    return Scene(scene.colour, scene.shape, scene.background, scene.layout, rng.random() < HAZARD_SHARE)


def _render_chunk(jobs: Sequence[tuple[Scene, int]]) -> NDArray[np.float16]:
    """Some images, through the preprocessing used for inference."""
    network = create_network(demo_model.NAME)
    preprocess = preprocessing(network)
    made = [preprocess(photo(scene, random.Random(seed), longest=300)) for scene, seed in jobs]
    pixels: NDArray[np.float16] = torch.stack(made).to(torch.float16).numpy()
    return pixels


def _fit(
    network: Any, scenes: list[Scene], pixels: torch.Tensor, texts: CaptionTable, plan: ClipTraining
) -> None:
    rng = random.Random(plan.seed)
    labels = torch.tensor([attributes(scene) for scene in scenes])
    classifier = torch.nn.Linear(network.token_embedding.embedding_dim, sum(CLASSES))
    parameters = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, plan.learning_rate, weight_decay=plan.weight_decay)
    order: list[int] = []
    network.train()
    for step in range(plan.steps):
        if len(order) < plan.batch:
            order = rng.sample(range(len(scenes)), len(scenes))
        chosen, order = order[: plan.batch], order[plan.batch :]
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(step, plan)
        tokens = [texts.sample(scenes[i], rng) for i in chosen]
        tokens += [texts.sample_unknown(rng) for _ in range(UNKNOWN_TEXTS)]
        images = functional.normalize(network.encode_image(_varied(pixels[chosen].float())), dim=-1)
        written = functional.normalize(encode_texts(network, tokens), dim=-1)
        loss = _contrastive(images, written, labels[chosen], network.logit_scale.exp().clamp(max=60))
        for found in (images, written[: plan.batch]):
            loss = loss + 0.5 * _naming(classifier(found * 8), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 20 == 0:
            log.info("step %d of %d: loss %.3f", step, plan.steps, loss.item())
    network.eval()


def _schedule(step: int, plan: ClipTraining) -> float:
    """Linear warm-up, then half a cosine."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / (plan.steps - plan.warmup)))


def _varied(pixels: torch.Tensor) -> torch.Tensor:
    """Mirrored at random, shifted by up to 3 pixels, lighter or darker: one image can be used many times."""
    mirrored = torch.rand(len(pixels), 1, 1, 1) < 0.5
    pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    side = pixels.shape[-1]
    left, top = torch.randint(0, 7, (2,)).tolist()
    padded = functional.pad(pixels, (3, 3, 3, 3), mode="replicate")
    light = 1 + 0.1 * torch.randn(len(pixels), 1, 1, 1)
    return padded[..., top : top + side, left : left + side] * light + 0.05 * torch.randn_like(pixels)


def encode_texts(network: Any, tokens: list[list[int]]) -> torch.Tensor:
    """`encode_text` of open_clip without the padding: short texts cost less. Two groups by length."""
    by_length = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    cut = len(tokens) * 3 // 4
    groups = (by_length[:cut], by_length[cut:])
    found = torch.cat([_encode_group(network, [tokens[i] for i in group]) for group in groups])
    return found[torch.argsort(torch.tensor([*groups[0], *groups[1]]))]


def _encode_group(network: Any, tokens: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, tokens))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])
    return encode_causal(network, padded, torch.tensor([len(row) for row in tokens]))


def _contrastive(
    images: torch.Tensor, texts: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """CLIP's loss both ways; equal scenes share the target, surplus texts are negatives only."""
    logits = scale * images @ texts.T
    same = (labels[:, None] == labels[None]).all(dim=-1).float()
    target = same / same.sum(dim=1, keepdim=True)
    padded = functional.pad(target, (0, texts.shape[0] - images.shape[0]))
    to_text = functional.cross_entropy(logits, padded)
    to_image = functional.cross_entropy(logits[:, : images.shape[0]].T, target)
    return (to_text + to_image) / 2


def _naming(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    parts = torch.split(logits, list(CLASSES), dim=1)
    losses = [functional.cross_entropy(part, labels[:, i]) for i, part in enumerate(parts)]
    return torch.stack(losses).mean()


DEFAULT = ClipTraining()


def main(
    seed: Annotated[int, typer.Option(help="Same seed, same data and order.")] = DEFAULT.seed,
    steps: Annotated[int, typer.Option(help="Training steps.")] = DEFAULT.steps,
    images: Annotated[int, typer.Option(help="Images drawn.")] = DEFAULT.images,
    folder: Annotated[Path, typer.Option(help="Where the files go.")] = demo_model.MODELS,
) -> None:
    """Train the demo's CLIP on drawn scenes and write its files to laion_etl/score/models."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger().handlers[0].addFilter(lambda record: record.name != "root")  # open_clip logs a lot
    train(ClipTraining(seed=seed, steps=steps, images=images), folder)


if __name__ == "__main__":
    typer.run(main)
