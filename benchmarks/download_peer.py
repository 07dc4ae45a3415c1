"""img2dataset over the same links; benchmarks.download runs it in the peers' environment.

    python benchmarks/download_peer.py URLS MODE      resize, check (no re-encoding) or raw (not decoded)

Prints one JSON object last. Needs the packages of benchmarks/peers.txt, and no code of this project.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from img2dataset import download

_MODES: dict[str, dict[str, Any]] = {
    "resize": {
        "resize_mode": "keep_ratio",
        "image_size": 256,
        "encode_quality": 95,
        "resize_only_if_bigger": True,
    },
    "check": {"resize_mode": "no", "skip_reencode": True},
    "raw": {"disable_all_reencoding": True},
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as folder:
        download(
            url_list=sys.argv[1],
            output_folder=f"{folder}/out",
            output_format="webdataset",
            processes_count=2,
            thread_count=64,
            number_sample_per_shard=1_000,
            **_MODES[sys.argv[2]],
        )
        stats = [json.loads(path.read_text()) for path in Path(folder).glob("out/*_stats.json")]
    print(json.dumps({"kept": sum(one["successes"] for one in stats)}))


if __name__ == "__main__":
    main()
