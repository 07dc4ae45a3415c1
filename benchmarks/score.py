"""Scoring beside clip-retrieval's `clip inference`, the bare forward pass and decoding alone: same shards,
same random weights, one run.

    make peers && python -m benchmarks.score                                   on the cores
    python -m benchmarks.score --device cuda --samples 20000 --model ViT-L-14  on a GPU

Rates are what more samples take longer: every way runs with a quarter of the samples and with all of them, so
that loading the model and starting processes is left out.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.photos import make_photos
from laion_etl.download.images import ImageSettings, Picture, decode
from laion_etl.machine import usable_cores
from laion_etl.minicrawl.scenes import caption, random_scene
from laion_etl.records import SHARD_SCHEMA, StageStats, batch_name, pair_id, sample_key
from laion_etl.score.openclip import create_network
from laion_etl.settings import DownloadSettings
from laion_etl.storage import LocalStore
from laion_etl.tarshard import finish, write_member

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


def _scaled(data: bytes) -> Picture:
    found = decode(data, ImageSettings.of(DownloadSettings()))
    if not isinstance(found, Picture):
        raise SystemExit(f"a photo came out as {found}")
    return found


def _row(batch: int, index: int, text: str) -> dict[str, object]:
    url = f"https://pictures.example/{batch}/{index}.jpg"
    return {
        "key": sample_key(batch, index),
        "pair_id": pair_id(url, text),
        "url": url,
        "caption": text,
        "language": "en",
        "license": "?",
        "page_url": "https://pictures.example/",
        "status": "success",
        "width": 256,
        "height": 256,
    }


def seconds(command: list[str]) -> tuple[float, dict[str, object]]:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:5])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began, json.loads(done.stdout.strip().splitlines()[-1])


def rate(command: list[str], few: int, all_: int, per_shard: int) -> tuple[float, dict[str, object]]:
    """Samples a second beyond the first `few` shards."""
    short, _ = seconds([*command, str(few)])
    whole, said = seconds([*command, str(all_)])
    if said["samples"] != all_ * per_shard:
        raise SystemExit(f"{command[2]} scored {said['samples']} of {all_ * per_shard} samples")
    return (all_ - few) * per_shard / (whole - short), said


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", default="ViT-B-32")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--samples", type=int, default=512)
    arguments.add_argument("--batch", type=int, default=64)
    options = arguments.parse_args()
    import torch

    per_shard = options.samples // 8
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        folder, checkpoint = Path(name), Path(name) / "weights.pt"
        shards = make_shards(folder, options.samples, per_shard)
        torch.manual_seed(0)
        torch.save(create_network(options.model).state_dict(), checkpoint)
        common = [str(folder), options.model, str(checkpoint), options.device, str(options.batch)]
        module = [sys.executable, "-m", "benchmarks.score_ways"]
        few = shards // 4
        rates: dict[str, float] = {}
        rates["ours, tar to parquet"], said = rate([*module, "ours", *common], few, shards, per_shard)
        if _PEER.exists():
            command = [str(_PEER), "benchmarks/score_peer.py", *common]
            rates["clip-retrieval"], _ = rate(command, few, shards, per_shard)
        for way in ("forward", "trimmed", "decode"):
            rates[way], _ = _told([*module, way, *common, str(shards)])
    bare = rates["forward"]
    names = {
        "forward": "bare forward pass of open_clip (the limit)",
        "trimmed": "forward pass with texts cut to their length",
        "decode": "decoding and scaling alone",
    }
    table = Table("", "samples/s", "of the bare forward pass")
    for name, found in rates.items():
        table.add_row(names.get(name, name), f"{found:,.1f}", f"{found / bare:.2f}")
    console = Console(width=110)
    console.print(
        f"{options.model} on {options.device}, batch {options.batch}, {usable_cores()} cores, "
        f"{os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())} threads; {said}"
    )
    console.print(table)


def _told(command: list[str]) -> tuple[float, dict[str, object]]:
    _, said = seconds(command)
    return float(str(said["samples_per_s"])), said


if __name__ == "__main__":
    main()
