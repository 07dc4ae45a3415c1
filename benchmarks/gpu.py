"""Measures a GPU in less than eight minutes, including the installation of missing packages.

    python -m benchmarks.gpu [--wheels FOLDER] [--output FILE]

For a machine that has torch for its GPU; other packages that are missing are installed into a folder of their
own, from wheels in a folder where there is no network (`pip download --no-deps -d FOLDER NAME==VERSION`). The
weights are random ones of the right architecture: their values do not change the speed, and nothing is
fetched.

For ViT-B/32 and ViT-L/14 in bfloat16: samples a second of the whole stage, what share that is of the bare
forward pass, how busy the GPU was, images a second and core, and the CPU that a sample costs. Also how fast
torchvision decodes the same JPEGs on the GPU, where its build can; the stage does not use that, because it
would decode hostile images in the process that holds the model. Measurements that no longer fit into the time
are listed as skipped.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Modules that scoring needs besides torch, by package.
_NEEDED = {
    "open_clip": "open_clip_torch",
    "ftfy": "ftfy",
    "wcwidth": "wcwidth",
    "simplejpeg": "simplejpeg",
    "trio": "trio",
    "outcome": "outcome",
    "sniffio": "sniffio",
    "sortedcontainers": "sortedcontainers",
    "numba": "numba",
    "pyarrow": "pyarrow",
    "regex": "regex",
    "rich": "rich",
    "timm": "timm",
    "transformers": "transformers",
}
_BARS = {"ViT-B-32": "10,000 samples/s with 16 cores", "ViT-L-14": "0.8 of the bare pass"}
_FORWARD_SHARDS = 2  # tokens of all texts are made before the bare pass is timed
_SHARDS = 8
_LATER_SHARDS = 3  # of models after the first, which is the fastest
_SLACK_S = 5.0


@dataclass
class Budget:
    """Seconds that are left for the whole script."""

    end: float
    skipped: list[str] = field(default_factory=list)

    def left(self) -> float:
        return self.end - time.monotonic() - _SLACK_S

    def run(self, name: str, command: Sequence[str]) -> dict[str, Any]:
        """The JSON object that a command prints last; empty, and skipped, if it does not end in time."""
        if (left := self.left()) <= 0:
            self.skipped.append(name)
            return {}
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=left)
        except subprocess.TimeoutExpired:
            self.skipped.append(name)
            return {}
        if done.returncode:
            raise SystemExit(f"cannot measure {name}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return figures


@dataclass(frozen=True, slots=True)
class Bench:
    """A model, and the folder that has the shards."""

    folder: Path
    model: str
    batch: int
    device: str


@dataclass(frozen=True, slots=True)
class Result:
    """A model's figures; None where there was no time, or no GPU to watch."""

    model: str
    batch: int
    samples_per_s: float | None
    forward_per_s: float | None
    trimmed_per_s: float | None
    busy: float | None
    cores: int
    host: dict[str, Any]

    @property
    def share(self) -> float | None:
        """The share of the bare forward pass that the stage reaches."""
        if self.samples_per_s is None or not self.forward_per_s:
            return None
        return self.samples_per_s / self.forward_per_s

    def to_plain(self) -> dict[str, Any]:
        rate = self.samples_per_s
        return {
            **asdict(self),
            "share": self.share,
            "per_core": None if rate is None else rate / self.cores,
            "bar": _BARS.get(self.model, ""),
        }


def missing_packages() -> list[str]:
    return [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]


def install(packages: Sequence[str], wheels: Path | None, target: Path) -> None:
    """Installs packages for this process and those it starts."""
    source = ["--no-index", f"--find-links={wheels}"] if wheels else []
    options = ["--quiet", "--no-deps", "--no-compile", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *source, *packages], check=True)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(target), *([before] if before else [])])
    sys.path.insert(0, str(target))
    importlib.invalidate_caches()


def measure(bench: Bench, budget: Budget, shards: int) -> Result:
    """All ways of one model over some of the shards; what no model changes only over all of them."""
    import torch

    from benchmarks.gpu_busy import watched
    from laion_etl.core.host_resources import usable_cores
    from laion_etl.score.openclip import create_network

    weights = bench.folder / f"{bench.model}.pt"
    torch.manual_seed(0)
    torch.save(create_network(bench.model).state_dict(), weights)

    def of(way: str, number: int) -> dict[str, Any]:
        given = [str(bench.folder), bench.model, str(weights), bench.device, str(bench.batch), str(number)]
        command = [sys.executable, "-m", "benchmarks.score_ways", way, *given]
        return budget.run(f"{way} of {bench.model}", command)

    with watched(bench.device) as busy:
        ours = of("ours", shards)
    forward, trimmed = (of(way, _FORWARD_SHARDS).get("samples_per_s") for way in ("forward", "trimmed"))
    host = of("host", shards) if shards == _SHARDS else {}
    share = busy.mean(ours["begin"], ours["end"]) if ours else None
    rate = ours.get("samples_per_s")
    return Result(bench.model, bench.batch, rate, forward, trimmed, share, usable_cores(), host)


def jpegs_per_s_on_gpu(folder: Path, device: str) -> float | None:
    """Images a second that torchvision decodes on the GPU; None where its build or the device cannot."""
    import torch

    if not device.startswith("cuda"):
        return None
    try:
        from torchvision.io import ImageReadMode, decode_jpeg

        files = sorted((folder / "photos").glob("*.jpg"))
        data = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in files]
        decode_jpeg(data, mode=ImageReadMode.RGB, device=device)
        torch.cuda.synchronize()
        began = time.perf_counter()
        decode_jpeg(data * 4, mode=ImageReadMode.RGB, device=device)
        torch.cuda.synchronize()
    except (ImportError, RuntimeError) as error:
        print(f"torchvision cannot decode on the GPU: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    return 4 * len(data) / (time.perf_counter() - began)


def options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", nargs="+", default=["ViT-B-32", "ViT-L-14"])
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--samples", type=int, default=64_000, help="others than the first get a quarter")
    arguments.add_argument("--batch", type=int, default=512)
    arguments.add_argument("--seconds", type=float, default=450)
    arguments.add_argument("--wheels", type=Path, help="folder of wheels, where there is no network")
    arguments.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", ".")) / "gpu.json")
    return arguments.parse_args()


def main() -> None:
    chosen = options()
    budget = Budget(time.monotonic() + chosen.seconds)
    with tempfile.TemporaryDirectory(prefix="laion-gpu-") as name:
        folder = Path(name)
        if packages := missing_packages():
            install(packages, chosen.wheels, folder / "packages")
        from benchmarks.score import machine, make_shards
        from laion_etl.score.resize import compile_loops

        compile_loops()
        make_shards(folder, chosen.samples, chosen.samples // _SHARDS)
        document: dict[str, Any] = {
            "machine": machine(chosen.device),
            "photos_decoded_on_gpu_per_s": jpegs_per_s_on_gpu(folder, chosen.device),
            "models": [],
        }
        for number, model in enumerate(chosen.model):
            bench = Bench(folder, model, chosen.batch, chosen.device)
            found = measure(bench, budget, _SHARDS if number == 0 else _LATER_SHARDS)
            document["models"].append(found.to_plain())
            document["no_time_for"] = budget.skipped
            chosen.output.write_text(json.dumps(document, indent=1))
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
