"""clip-retrieval's `clip inference` over the same shards; benchmarks.score runs it in the peer's environment.

    python benchmarks/score_peer.py FOLDER MODEL WEIGHTS DEVICE BATCH SHARDS

Prints one JSON object last. Needs no code of this project.
"""

import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    folder, model, weights, device, batch, shards = sys.argv[1:]
    if device == "cpu":  # PyPI's torchvision is built for CUDA: a CPU build of torch lacks two schemas
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
    from clip_retrieval.clip_inference.main import main as clip_inference

    with tempfile.TemporaryDirectory(prefix="laion-bench-") as output, redirect_stdout(sys.stderr):
        clip_inference(
            input_dataset=f"{folder}/shards/C/{{{0:09d}..{int(shards) - 1:09d}}}.tar",
            output_folder=output,
            input_format="webdataset",
            batch_size=int(batch),
            num_prepro_workers=os.cpu_count(),
            clip_model=f"open_clip:{model}/{weights}",
            use_jit=False,
            output_partition_count=1,
        )
        rows = sum(len(np.load(path)) for path in Path(output).glob("img_emb/*.npy"))
    print(json.dumps({"samples": rows}))


if __name__ == "__main__":
    main()
