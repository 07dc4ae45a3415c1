"""One way of scoring; benchmarks.score runs each in a separate process.

    python -m benchmarks.score_ways WAY FOLDER MODEL WEIGHTS DEVICE BATCH SHARDS

WAY: ours (the score stage), host (the stage with a model that costs nothing: the limit of the host),
forward (open_clip on ready tensors), trimmed (the same with texts cut to their length), decode
(pixels and tokens of all samples). Prints one JSON object last.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from laion_etl.core.host_resources import usable_cores
from laion_etl.io.storage import LocalStore
from laion_etl.score.device_transfer import DeviceFuture, FromDevice
from laion_etl.score.encode import begin_batch
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.pixels import Pixels
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.scorer import SampleScorer, load_scorer
from laion_etl.score.shard_reader import Sample, chunked, shard_samples
from laion_etl.score.shared_tables import Plans, Tokens
from laion_etl.score.stage import Tools, score_shards
from laion_etl.settings import ClipSettings, SafetySettings, Settings

_MAX_FORWARD_SAMPLES = {"cpu": 192}
_OWN = Tools()
_AHEAD = 4  # batches that are being prepared at once


def main() -> None:
    way, folder, model, weights, device, batch, shards = sys.argv[1:]
    settings = Settings(
        clip=ClipSettings(model=model, pretrained=weights, device=device, batch_size=int(batch)),
        safety=SafetySettings(),
    )
    store = LocalStore(Path(folder))
    ways: dict[str, Callable[[Settings, LocalStore, int], dict[str, Any]]] = {
        "ours": ours,
        "host": host,
        "forward": lambda *given: forward(*given, trimmed=False),
        "trimmed": lambda *given: forward(*given, trimmed=True),
        "decode": decode,
    }
    print(json.dumps(ways[way](settings, store, int(shards))))


def ours(settings: Settings, store: LocalStore, shards: int, tools: Tools = _OWN) -> dict[str, Any]:
    """The stage, measured from the end of its first shard to the end of its last."""
    shutil.rmtree(Path(sys.argv[2]) / "scored", ignore_errors=True)
    memory: list[float] = []
    ends: list[float] = []
    spent: list[float] = []
    preparing: list[float] = []

    def measure(_: object) -> None:
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        ends.append(time.time())
        spent.append(time.process_time())
        preparing.append(_of_children())

    stats = score_shards("C", range(shards), settings, store, measure, tools)
    later = sum(one.input for one in stats[1:])
    return {
        "samples": sum(one.input for one in stats),
        "samples_per_s": later / (ends[-1] - ends[0]) if later else 0.0,
        "begin": ends[0],
        "end": ends[-1],
        "own_cpu_us": 1e6 * (spent[-1] - spent[0]) / max(1, later),
        "preparers_cpu_us": 1e6 * (preparing[-1] - preparing[0]) / max(1, later),
        "peak_mb_after_first_shard": round(memory[0]),
        "peak_mb_after_last_shard": round(memory[-1]),
    }


def _of_children() -> float:
    """CPU seconds of the running child processes: those that prepare samples."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            fields_of = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields_of[11]) + int(fields_of[12])  # in user mode and in the kernel
    return ticks / os.sysconf("SC_CLK_TCK")


class _Free(ClipModel):
    """Embeddings at no cost, on a device other than a CPU: samples are prepared ahead as for a GPU."""

    def start_pixels(self, pixels: Pixels) -> DeviceFuture:
        return FromDevice(torch.full((len(pixels), self.dim), self.dim**-0.5))

    def start_tokens(self, tokens: Tokens) -> DeviceFuture:
        return FromDevice(torch.full((len(tokens), self.dim), self.dim**-0.5))


def host(settings: Settings, store: LocalStore, shards: int) -> dict[str, Any]:
    def free(settings: Settings) -> SampleScorer:
        scorer = load_scorer(settings)
        values = {field.name: getattr(scorer.model, field.name) for field in fields(ClipModel)}
        return replace(scorer, model=_Free(**{**values, "device": "none"}))

    return ours(settings, store, shards, Tools(scorer=free))


def samples_of(store: LocalStore, shards: int, limit: int) -> list[Sample]:
    found: list[Sample] = []
    for batch in range(shards):
        found += shard_samples(store.read_stats(f"shards/C/{batch:09d}_stats.json"), store)
    return found[:limit]


def forward(settings: Settings, store: LocalStore, shards: int, *, trimmed: bool) -> dict[str, Any]:
    """Images and texts through the network, batch by batch; nothing is decoded in that time."""
    model = load_model(settings.clip)
    limit = _MAX_FORWARD_SAMPLES.get(model.device, 1 << 30)
    samples = samples_of(store, shards, limit)
    size, side = settings.clip.batch_size, model.pixel_plan.side
    pixels = torch.randn(size, 3, side, side, device=model.device)
    chunks = [chunk for chunk in chunked(iter(samples), size) if len(chunk) == size]
    tokens = [model.tokens_of([sample.text or "" for sample in chunk]) for chunk in chunks]
    _pass(model, pixels, tokens[:1], trimmed=trimmed)
    began = time.perf_counter()
    _pass(model, pixels, tokens, trimmed=trimmed)
    spent = time.perf_counter() - began
    return {"samples_per_s": len(tokens) * size / spent}


def _pass(model: ClipModel, pixels: torch.Tensor, tokens: list[Tokens], *, trimmed: bool) -> None:
    """Waits for all results at the end only, so that the loop does not stall a GPU."""
    network: Any = model.network
    results: list[Any] = []
    for chunk in tokens:
        with _precision(model):
            results.append(network.encode_image(pixels))
            if not trimmed:
                results.append(network.encode_text(torch.from_numpy(chunk).long().to(model.device)))
        if trimmed:
            results.append(model.start_tokens(chunk))
    for result in results:
        result.cpu() if isinstance(result, torch.Tensor) else result.get()


@contextmanager
def _precision(model: ClipModel) -> Any:
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(model.precision)
    with (
        torch.inference_mode(),
        torch.autocast(model.device.partition(":")[0], dtype=kind, enabled=kind is not None),
    ):
        yield


def decode(settings: Settings, store: LocalStore, shards: int) -> dict[str, Any]:
    model = load_model(settings.clip)
    samples = samples_of(store, shards, 1 << 30)
    size = settings.clip.batch_size
    plans = Plans((model.pixel_plan,), (model.text_plan,) if model.text_plan else ())
    with Preparers(plans, size, _AHEAD, usable_cores()) as preparers:
        warm = begin_batch(samples[:size], (model,), preparers).prepared
        warm.wait()
        preparers.release(warm)
        began = time.perf_counter()
        running = []
        for chunk in chunked(iter(samples * 4), size):
            running.append(begin_batch(chunk, (model,), preparers).prepared)
            if len(running) == _AHEAD:
                first = running.pop(0)
                first.wait()
                preparers.release(first)
        for one in running:
            one.wait()
        return {"samples_per_s": 4 * len(samples) / (time.perf_counter() - began)}


if __name__ == "__main__":
    main()
