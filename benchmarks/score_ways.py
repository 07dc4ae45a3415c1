"""One way of scoring; benchmarks.score runs each as a process of its own.

    python -m benchmarks.score_ways WAY FOLDER MODEL WEIGHTS DEVICE BATCH SHARDS

WAY: ours (the score stage), forward (open_clip on tensors that are there), trimmed (the same with texts cut
to their length), decode (pixels of all images). Prints one JSON object last.
"""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from laion_etl.machine import usable_cores
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.preparers import Preparers
from laion_etl.score.samples import Sample, chunked, shard_samples
from laion_etl.score.stage import score_shards
from laion_etl.settings import ClipSettings, SafetySettings, Settings
from laion_etl.storage import LocalStore

_MOST_SAMPLES_OF_FORWARD = {"cpu": 192}


def main() -> None:
    way, folder, model, weights, device, batch, shards = sys.argv[1:]
    settings = Settings(
        clip=ClipSettings(model=model, pretrained=weights, device=device, batch_size=int(batch)),
        safety=SafetySettings(),
    )
    store = LocalStore(Path(folder))
    ways: dict[str, Callable[[Settings, LocalStore, int], dict[str, Any]]] = {
        "ours": ours,
        "forward": lambda *given: forward(*given, trimmed=False),
        "trimmed": lambda *given: forward(*given, trimmed=True),
        "decode": decode,
    }
    print(json.dumps(ways[way](settings, store, int(shards))))


def ours(settings: Settings, store: LocalStore, shards: int) -> dict[str, Any]:
    shutil.rmtree(Path(sys.argv[2]) / "scored", ignore_errors=True)
    memory: list[float] = []

    def measure(_: object) -> None:
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    stats = score_shards("C", range(shards), settings, store, measure)
    return {
        "samples": sum(one.input for one in stats),
        "peak_mb_after_first_shard": round(memory[0]),
        "peak_mb_after_last_shard": round(memory[-1]),
    }


def samples_of(store: LocalStore, shards: int, most: int) -> list[Sample]:
    found: list[Sample] = []
    for batch in range(shards):
        found += shard_samples(store.read_stats(f"shards/C/{batch:09d}_stats.json"), store)
    return found[:most]


def forward(settings: Settings, store: LocalStore, shards: int, *, trimmed: bool) -> dict[str, Any]:
    """Images and texts through the network, batch by batch; nothing is decoded in that time."""
    model = load_model(settings.clip)
    most = _MOST_SAMPLES_OF_FORWARD.get(model.device, 1 << 30)
    samples = samples_of(store, shards, most)
    size, side = settings.clip.batch_size, model.pixel_plan.side
    pixels = torch.randn(size, 3, side, side, device=model.device)
    texts = [[sample.text or "" for sample in chunk] for chunk in chunked(iter(samples), size)]
    texts = [chunk for chunk in texts if len(chunk) == size]
    _pass(model, pixels, texts[:1], trimmed=trimmed)
    began = time.perf_counter()
    _pass(model, pixels, texts, trimmed=trimmed)
    spent = time.perf_counter() - began
    return {"samples_per_s": len(texts) * size / spent}


def _pass(model: ClipModel, pixels: torch.Tensor, texts: list[list[str]], *, trimmed: bool) -> None:
    network: Any = model.network
    tokens = [model.tokenize(chunk).to(model.device) for chunk in texts]
    kind = torch.bfloat16 if model.precision == "bf16" else None
    for one, chunk in zip(tokens, texts, strict=True):
        with (
            torch.inference_mode(),
            torch.autocast(model.device.partition(":")[0], dtype=kind, enabled=kind is not None),
        ):
            images = network.encode_image(pixels)
            images.cpu()
            if not trimmed:
                network.encode_text(one).cpu()
        if trimmed:
            model.embed_texts(chunk)


def decode(settings: Settings, store: LocalStore, shards: int) -> dict[str, Any]:
    plan = load_model(settings.clip).pixel_plan
    samples = samples_of(store, shards, 1 << 30)
    size = settings.clip.batch_size
    with Preparers([plan], size, 4, usable_cores()) as preparers:
        warm = preparers.prepare([sample.image for sample in samples[:size]])
        warm.wait()
        preparers.release(warm)
        began = time.perf_counter()
        running = []
        for chunk in chunked(iter(samples * 4), size):
            running.append(preparers.prepare([sample.image for sample in chunk]))
            if len(running) == 4:
                first = running.pop(0)
                first.wait()
                preparers.release(first)
        for one in running:
            one.wait()
        return {"samples_per_s": 4 * len(samples) / (time.perf_counter() - began)}


if __name__ == "__main__":
    main()
