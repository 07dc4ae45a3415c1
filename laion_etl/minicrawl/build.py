"""Writes the mini crawl: a folder laid out like data.commoncrawl.org, with one small crawl in it."""

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from laion_etl.core.funnel import DownloadStatus, ParseReason
from laion_etl.crawl import released
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.behaviours import CLOSED, SHOPS, SITES
from laion_etl.minicrawl.pages import Page, make_pages
from laion_etl.minicrawl.wat import WatWriter
from laion_etl.minicrawl.world import World, make_world

CRAWL = "CC-MAIN-2026-43"
WAT_FILES = 6
_SEGMENTS = ("1760000000000.10", "1760000000000.37")
_DOCUMENTS_PER_FILE = 4
_CLOSED_PORT = 1  # tcpmux: nothing listens on it


@dataclass(frozen=True, slots=True)
class MiniCrawl:
    """A built mini crawl. `dropped`: image links that parsing must drop, when all files are one partition."""

    folder: Path
    world: World = field(repr=False)
    dropped: dict[ParseReason, int]
    crawl: str = CRAWL

    @property
    def seed(self) -> int:
        return self.world.seed

    @property
    def expected(self) -> dict[str, DownloadStatus]:
        """How the download of each image URL must end."""
        return self.world.expected

    @property
    def wat_files(self) -> list[Path]:
        """The WAT files, in the order of wat.paths."""
        return [self.folder / path for path in _wat_names()]

    @property
    def catalogue(self) -> Path:
        """The file for LAION_ETL_CATALOGUE."""
        return self.folder / "catalogue.json"

    def connect_to(self, port: int) -> tuple[str, ...]:
        """Entries of LAION_ETL_DOWNLOAD_CONNECT_TO for a MiniWeb on this port."""
        served = tuple(f"*.{domain}=127.0.0.1:{port}" for domain in (SITES, SHOPS))
        return (*served, f"*.{CLOSED}=127.0.0.1:{_CLOSED_PORT}")

    def environment(self, port: int) -> dict[str, str]:
        """The settings under which every stage works on this crawl."""
        return {
            "LAION_ETL_CRAWL_SOURCE": f"http://127.0.0.1:{port}",
            "LAION_ETL_CATALOGUE": str(self.catalogue.absolute()),
            "LAION_ETL_DOWNLOAD_CONNECT_TO": ",".join(self.connect_to(port)),
        }

    def source_file(self, target: str) -> Path | None:
        """The crawl file at a request target; None for any other target."""
        names = {"collinfo.json", _paths_name(), *_wat_names()}
        name = unquote(target.partition("?")[0]).removeprefix("/")
        return self.folder / name if name in names else None


def build_minicrawl(folder: Path, seed: int = 0) -> MiniCrawl:
    """Writes the crawl of a seed, in about two seconds; the same seed gives the same bytes."""
    world = make_world(seed)
    pages, dropped = make_pages(world)
    store = LocalStore(folder)
    for number, name in enumerate(_wat_names()):
        store.write(name, _wat_file(number, pages[number::WAT_FILES], seed))
    paths = "".join(f"{name}\n" for name in _wat_names())
    store.write(_paths_name(), gzip.compress(paths.encode(), mtime=0))
    store.write("collinfo.json", _json(_collinfo()))
    store.write("catalogue.json", _json(_catalogue()))
    return MiniCrawl(folder, world, _sorted(dropped))


def _wat_file(number: int, pages: Sequence[Page], seed: int) -> bytes:
    writer = WatWriter(f"{_warc_stem(number)}.warc.gz", random.Random(f"wat {seed} {number}"))
    records = [writer.warcinfo()]
    for page in pages:
        records += writer.page(page)
    for i in range(_DOCUMENTS_PER_FILE):
        records += writer.document(f"http://www.{SITES}/files/report-{number}-{i}.pdf")
    if number == WAT_FILES // 2:
        records += writer.broken(_page_without_images(number))
    return b"".join(records)


def _page_without_images(number: int) -> Page:
    url = f"http://www.{SITES}/broken/{number}.html"
    return Page(url, "en", "A page cut in half", None, None, headless=False, images=())


def _warc_stem(number: int) -> str:
    return f"CC-MAIN-20261019020841-20261019050841-{number:05d}"


def _wat_names() -> list[str]:
    return [
        f"crawl-data/{CRAWL}/segments/{_SEGMENTS[number * len(_SEGMENTS) // WAT_FILES]}/wat/"
        f"{_warc_stem(number)}.warc.wat.gz"
        for number in range(WAT_FILES)
    ]


def _paths_name() -> str:
    return f"crawl-data/{CRAWL}/wat.paths.gz"


def _collinfo() -> list[dict[str, str]]:
    index = "https://index.commoncrawl.org"
    return [
        {
            "id": CRAWL,
            "name": "October 2026 Index (mini crawl)",
            "timegate": f"{index}/{CRAWL}/",
            "cdx-api": f"{index}/{CRAWL}-index",
            "from": "2026-10-19T02:08:41",
            "to": "2026-10-31T23:59:59",
        }
    ]


def _catalogue() -> dict[str, object]:
    crawl = {"id": CRAWL, "name": "Mini crawl", "released": released(CRAWL).isoformat()}
    return {"note": ["The mini crawl only; see laion_etl/minicrawl."], "crawls": [crawl]}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _sorted(counts: Counter[ParseReason]) -> dict[ParseReason, int]:
    pairs: Iterable[tuple[ParseReason, int]] = sorted(counts.items())
    return dict(pairs)
