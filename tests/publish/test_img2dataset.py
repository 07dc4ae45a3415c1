import hashlib
import os
import shlex
import subprocess
import tarfile
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from laion_etl.core.funnel import DownloadStatus
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.publish.stage import publish_dataset
from laion_etl.settings import Settings
from tests.documented_code import code_blocks
from tests.publish.world import CRAWL, build_world, write_world

PEERS = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"

# Imported by every Python process that finds it: all names are the mini web's.
ALL_NAMES_ARE_THE_MINI_WEB = """
import socket
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, port, *rest, **more: real("127.0.0.1", {port}, *rest, **more)
"""


@pytest.mark.skipif(
    not PEERS.exists(), reason="img2dataset is not installed beside the project: `make peers`"
)
def test_img2dataset_downloads_what_we_publish_and_compares_it_with_the_images_that_were_scored(
    tmp_path: Path, minicrawl: MiniCrawl, miniweb: MiniWeb
) -> None:
    """By the line of docs/formats.md, with one of the images changed since."""
    store, world = LocalStore(tmp_path / "store"), build_world(batches=1, samples=20)
    good = [url for url, status in minicrawl.expected.items() if status is DownloadStatus.SUCCESS]
    plain = sorted(url for url in good if url.startswith("http://") and url.count("/") == 3)
    for row, url in zip(world.rows, plain, strict=False):
        row["url"], row["sha256"] = url, hashlib.sha256(fetched(url, miniweb.port)).hexdigest()
    changed = world.kept[3]
    changed["sha256"] = "00" * 32
    write_world(world, store)
    publish_dataset(CRAWL, Settings(), store)
    (tmp_path / "sitecustomize.py").write_text(ALL_NAMES_ARE_THE_MINI_WEB.format(port=miniweb.port))
    [line] = code_blocks("formats.md", "Loading", "sh")
    _, *arguments = shlex.split(line.replace("CC-MAIN-2024-38", CRAWL))
    done = subprocess.run(
        [str(PEERS.with_name("img2dataset")), *arguments, "--processes_count", "1", "--thread_count", "8"],
        cwd=store.root,
        env=os.environ
        | {"PYTHONPATH": str(tmp_path), "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(store.root / "images" / "00000.parquet").to_pylist()
    found = {row["SAMPLE_ID"]: (row["url"], row["caption"], row["error_message"]) for row in rows}
    assert found == {
        int(row["key"]): (row["url"], row["caption"], "hash mismatch" if row is changed else None)
        for row in world.kept
    }
    with tarfile.open(store.root / "images" / "00000.tar") as tar:
        images = [name for name in tar.getnames() if name.endswith(".jpg")]
    assert len(images) == len(world.kept) - 1


def fetched(url: str, port: int) -> bytes:
    """The bytes that the mini web serves for a URL."""
    parts = urlsplit(url)
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
    data = connection.getresponse().read()
    connection.close()
    return data
