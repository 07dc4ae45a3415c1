"""Scoring compared with clip-retrieval's `clip inference`, the bare forward pass and decoding alone, with the
same shards and random weights in one run.

    make peers && python -m benchmarks.score

On a machine with a GPU it runs there, in bfloat16: ViT-B/32 and ViT-L/14, a sweep over batch sizes, and how
busy the GPU was. Without one it runs ViT-B/32 on the cores.

Rates exclude loading the model and starting processes: ours and clip-retrieval run on a quarter of the shards
and on all of them, and the difference counts; the other ways are measured within one process. All ways take
turns in several rounds, and ratios are computed per round: a drifting clock speed affects both sides.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_busy import watched
from benchmarks.photos import make_photos
from laion_etl.core.host_resources import usable_cores
from laion_etl.core.ids import batch_name, sample_key
from laion_etl.core.schemas import SHARD_SCHEMA, pair_id
from laion_etl.core.stage_stats import StageStats
from laion_etl.download.images import ImageSettings, StoredImage, decode
from laion_etl.io.storage import LocalStore
from laion_etl.io.tarshard import finish, write_member
from laion_etl.minicrawl.scenes import caption, random_scene
from laion_etl.score.openclip import create_network
from laion_etl.settings import DownloadSettings

_PEER = Path(".venv-peers-clip/bin/python")
_PHOTOS = 100


def make_shards(folder: Path, samples: int, per_shard: int) -> int:
    """Shards as the download stage leaves them, of photos scaled to 256; returns their number."""
    store = LocalStore(folder)
    photos = [_scaled(path.read_bytes()) for path in make_photos(folder / "photos", _PHOTOS)]
    rng = random.Random(1)
    shards = samples // per_shard
    for batch in range(shards):
        rows, stem = [], f"shards/C/{batch_name(batch)}"
        with store.create(f"{stem}.tar") as tar:
            for index in range(per_shard):
                # One to three captions of drawn scenes: 20 tokens on average.
                text = ", ".join(caption(random_scene(rng), "en", rng) for _ in range(rng.randint(1, 3)))
                row = _row(batch, index, text)
                rows.append(row)
                write_member(tar, f"{row['key']}.jpg", photos[rng.randrange(_PHOTOS)].data)
                write_member(tar, f"{row['key']}.txt", text.encode())
                write_member(tar, f"{row['key']}.json", json.dumps({"url": row["url"]}).encode())
            finish(tar)
        with store.create(f"{stem}.parquet") as parquet:
            pq.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), parquet)
        outputs = (parquet.output, tar.output)
        stats = StageStats("download", "C", batch_name(batch), "f", per_shard, per_shard, {}, outputs)
        store.write_stats(f"{stem}_stats.json", stats)
    return shards


def _scaled(data: bytes) -> StoredImage:
    found = decode(data, ImageSettings.from_settings(DownloadSettings()))
    if not isinstance(found, StoredImage):
        raise SystemExit(f"a photo came out as {found}")
    return found


def _row(batch: int, index: int, text: str) -> dict[str, object]:
    url = f"https://images.example/{batch}/{index}.jpg"
    return {
        "key": sample_key(batch, index),
        "pair_id": pair_id(url, text),
        "url": url,
        "caption": text,
        "language": "en",
        "license": "?",
        "page_url": "https://images.example/",
        "status": "success",
        "width": 256,
        "height": 256,
    }


def seconds(command: list[str]) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:5])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began, json.loads(done.stdout.strip().splitlines()[-1])


def rate(command: list[str], few: int, all_: int, per_shard: int) -> tuple[float, dict[str, Any]]:
    """Samples a second beyond the first `few` shards."""
    short, _ = seconds([*command, str(few)])
    whole, figures = seconds([*command, str(all_)])
    if figures["samples"] != all_ * per_shard:
        raise SystemExit(f"{command[2]} scored {figures['samples']} of {all_ * per_shard} samples")
    return (all_ - few) * per_shard / (whole - short), figures


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; shares are None where they are unknown."""

    way: str
    rate: float
    busy: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """Shards and the weights of a model, and how to run a way of scoring them."""

    folder: Path
    shards: int
    per_shard: int
    model: str
    weights: Path
    device: str

    def arguments(self, batch: int) -> list[str]:
        return [str(self.folder), self.model, str(self.weights), self.device, str(batch)]

    def figures_of(self, way: str, batch: int) -> dict[str, Any]:
        """The figures of a way over all shards."""
        command = [sys.executable, "-m", "benchmarks.score_ways", way, *self.arguments(batch)]
        return seconds([*command, str(self.shards)])[1]

    def rows(self, batch: int) -> list[Row]:
        """All ways with batches of one size."""
        ours = [sys.executable, "-m", "benchmarks.score_ways", "ours", *self.arguments(batch)]
        few = self.shards // 4
        with watched(self.device) as busy:
            found, figures = rate(ours, few, self.shards, self.per_shard)
        share = busy.mean(figures["begin"], figures["end"])
        memory = f"{figures['peak_mb_after_first_shard']:,} to {figures['peak_mb_after_last_shard']:,} MB"
        rows = [Row(_OURS, found, share, memory)]
        if _PEER.exists():
            peer = [str(_PEER), "benchmarks/score_peer.py", *self.arguments(batch)]
            with watched(self.device) as busy:
                began = time.time()
                found, _ = rate(peer, few, self.shards, self.per_shard)
            rows.append(Row(_THEIRS, found, busy.mean(began, time.time())))
        for way in ("forward", "trimmed", "host", "decode"):
            figures = self.figures_of(way, batch)
            note = cpu_note(figures)
            rows.append(Row(_NAMES[way], figures["samples_per_s"], note=note))
        return rows


def cpu_note(figures: dict[str, Any]) -> str:
    """The CPU that a sample costs, where it was measured."""
    if "own_cpu_us" not in figures:
        return ""
    own, preparers = figures["own_cpu_us"], figures["preparers_cpu_us"]
    return f"{own + preparers:,.0f} us of CPU a sample, {own:,.0f} of them in the stage's own process"


_OURS, _THEIRS = "ours, tar to parquet", "clip-retrieval"
_NAMES = {
    "forward": "bare forward pass of open_clip (the limit)",
    "trimmed": "forward pass with texts cut to their length",
    "host": "ours with a model that costs nothing",
    "decode": "decoding, scaling and tokenising alone",
}


def ratios(rounds: list[list[Row]], way: str, other: str) -> list[float]:
    """Ratio of the rates of two ways, by round; empty if one of them did not run."""
    rates = [{row.way: row.rate for row in rows} for rows in rounds]
    return [found[way] / found[other] for found in rates if {way, other} <= found.keys()]


def shown(bench: Bench, batch: int, rounds: list[list[Row]]) -> Table:
    cores = usable_cores()
    by_round = ", ".join(f"{ratio:.2f}" for ratio in ratios(rounds, _OURS, _THEIRS)) or "not run"
    table = Table(
        f"{bench.model}, batch {batch}",
        "samples/s",
        "of the bare pass",
        "GPU busy",
        "a core",
        "",
        min_width=100,
        caption=f"medians of {len(rounds)} rounds; ours against clip-retrieval, by round: {by_round}",
    )
    for same in zip(*rounds, strict=True):
        rate, row = median(one.rate for one in same), same[-1]
        busy = "-" if row.busy is None else f"{row.busy:.0%}"
        share = f"{median(ratios(rounds, row.way, _NAMES['forward'])):.2f}"
        table.add_row(row.way, f"{rate:,.1f}", share, busy, f"{rate / cores:,.1f}", row.note)
    return table


def options() -> argparse.Namespace:
    import torch

    gpu = torch.cuda.is_available()
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", nargs="+", default=["ViT-B-32", "ViT-L-14"] if gpu else ["ViT-B-32"])
    arguments.add_argument("--device", default="cuda" if gpu else "cpu")
    arguments.add_argument("--samples", type=int, default=40_000 if gpu else 512)
    arguments.add_argument("--batch", type=int, nargs="+", default=[256, 512, 1024, 2048] if gpu else [64])
    arguments.add_argument("--rounds", type=int, default=1 if gpu else 3)
    return arguments.parse_args()


def machine(device: str) -> str:
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return f"{name}, {usable_cores()} cores, {threads} threads, torch {torch.__version__}"


def main() -> None:
    chosen = options()
    import torch

    console = Console(width=140)
    per_shard = chosen.samples // 8
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        folder, weights = Path(name), Path(name) / "weights.pt"
        shards = make_shards(folder, chosen.samples, per_shard)
        console.print(f"{machine(chosen.device)}; {shards} shards of {per_shard}")
        for model in chosen.model:
            torch.manual_seed(0)
            torch.save(create_network(model).state_dict(), weights)
            bench = Bench(folder, shards, per_shard, model, weights, chosen.device)
            for batch in chosen.batch:
                rounds = [bench.rows(batch) for _ in range(chosen.rounds)]
                console.print(shown(bench, batch, rounds))


if __name__ == "__main__":
    main()
