import json
import os
import subprocess
from pathlib import Path

import pytest

from laion_etl.core.funnel import DownloadStatus
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, build_world, write_world

PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"

# Imported by every Python process that finds it: all names are the mini web's.
ALL_NAMES_ARE_THE_MINI_WEB = """
import socket
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, port, *rest, **more: real("127.0.0.1", {port}, *rest, **more)
"""

PROGRAM = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format="parquet", url_col="URL",
             caption_col="TEXT", save_additional_columns=["SAMPLE_ID", "similarity"], output_format="files",
             resize_mode="no", skip_reencode=True, processes_count=1, thread_count=8, enable_wandb=False)
"""


@pytest.mark.skipif(
    not PEERS.exists(), reason="img2dataset is not installed beside the project: `make peers`"
)
def test_img2dataset_downloads_what_we_publish(
    tmp_path: Path, minicrawl: MiniCrawl, miniweb: MiniWeb
) -> None:
    store, world = LocalStore(tmp_path / "store"), build_world(batches=1, samples=20)
    good = [url for url, status in minicrawl.expected.items() if status is DownloadStatus.SUCCESS]
    plain = sorted(url for url in good if url.startswith("http://") and url.count("/") == 3)
    for row, url in zip(world.rows, plain, strict=False):
        row["url"] = url
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    (tmp_path / "sitecustomize.py").write_text(ALL_NAMES_ARE_THE_MINI_WEB.format(port=miniweb.port))
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = store.root / "dataset" / "laion" / CRAWL / "laion-en"
    done = subprocess.run(
        [str(PEERS), str(tmp_path / "program.py"), str(folder), str(tmp_path / "out")],
        env=os.environ
        | {"PYTHONPATH": str(tmp_path), "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    notes = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("0*/*.json"))]
    found = {note["SAMPLE_ID"]: (note["url"], note["caption"], note["status"]) for note in notes}
    assert found == {int(row["key"]): (row["url"], row["caption"], "success") for row in world.kept}
    assert len(list((tmp_path / "out").glob("0*/*.jpg"))) == len(world.kept)
