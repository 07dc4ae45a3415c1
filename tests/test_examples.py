"""The programs of examples/, run as their users run them, and the page that shows their lines."""

import ast
import json
import os
import random
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import laion_etl
from laion_etl.alerts import Alert, Kind, deliver
from laion_etl.core.funnel import DownloadStatus
from laion_etl.crawl import partitions
from laion_etl.io.storage import LocalStore
from laion_etl.io.tarshard import read_members
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.scenes import Scene, caption
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.parse.stage import parse_partition
from laion_etl.settings import Settings, load_settings
from tests.parse.wat_files import image, page_record, write_wat
from tests.preloaded_commands import completed
from tests.score.conftest import jpeg
from tests.search.conftest import World, world

__all__ = ["world"]

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DEMO_MODEL = {"CLIP_MODEL": "laion-etl-tiny", "CLIP_PRETRAINED": "scenes", "CLIP_PREPARERS": "1"}


def run(example: str, *arguments: object, folder: Path, **settings: str) -> list[str]:
    """The lines that an example prints, run in a folder."""
    environment = os.environ | {f"LAION_ETL_{name}": value for name, value in settings.items()}
    done = completed([str(EXAMPLES / example), *map(str, arguments)], environment, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_parse_one_wat(minicrawl: MiniCrawl, tmp_path: Path) -> None:
    [line] = run("parse_one_wat.py", minicrawl.wat_files[0], "pairs.parquet", folder=tmp_path)
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert set(table["language"].to_pylist()) == {"en"}
    counts = [int(count.replace(",", "")) for count in re.findall(r"[\d,]*\d", line)]
    assert counts[1] == table.num_rows > 0
    assert counts[0] == sum(counts[1:])
    assert "not_english" in line


def test_download_urls(minicrawl: MiniCrawl, miniweb: MiniWeb, tmp_path: Path) -> None:
    expected = minicrawl.expected
    good = [url for url, status in expected.items() if status is DownloadStatus.SUCCESS][:3]
    missing = next(url for url, status in expected.items() if status is DownloadStatus.HTTP_ERROR)
    listed = [f"{url}\tcaption {number}" for number, url in enumerate([*good, missing])]
    (tmp_path / "list.tsv").write_text("\n".join(listed))
    printed = run(
        "download_urls.py",
        "list.tsv",
        "shards",
        folder=tmp_path,
        DOWNLOAD_CONNECT_TO=",".join(miniweb.connect_to),
    )
    assert printed[:2] == [
        str(tmp_path / "shards/000000000.tar"),
        "4 in, 3 kept; dropped: http_error 1",
    ]
    assert [line.split()[0] for line in printed[2:]] == ["success"] * 3 + ["http_error"]
    with (tmp_path / "shards/000000000.tar").open("rb") as tar:
        texts = [data.decode() for name, data in read_members(tar) if name.endswith(".txt")]
    assert texts == ["caption 0", "caption 1", "caption 2"]


def test_score_folder(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    star, heart = Scene("red", "star", "beach", "single"), Scene("blue", "circle", "night", "single")
    for name, shown, described in (("right", star, star), ("wrong", star, heart)):
        (images / f"{name}.jpg").write_bytes(jpeg(shown))
        (images / f"{name}.txt").write_text(caption(described, "en", random.Random(0)))
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (images / "broken.txt").write_text("A broken image")
    broken, right, wrong = run("score_folder.py", images, folder=tmp_path)
    assert broken == "broken.jpg - None unreadable"
    assert right.startswith("right.jpg ")
    assert right.endswith(" UNLIKELY kept")
    assert wrong.endswith(" low_similarity")


def test_read_dataset(world: World, tmp_path: Path) -> None:
    name = world.settings.publish.name
    head, *rows = run("read_dataset.py", world.store.root / "dataset" / name, "laion-en", folder=tmp_path)
    published = world.published
    en = next(subset for subset in published.manifest.document["subsets"] if subset["name"] == "laion-en")
    assert head == f"{published.release.version}: {published.rows} rows, 0 problems"
    assert len(rows) == en["rows"] > 0


def test_search_dataset(world: World, tmp_path: Path) -> None:
    dataset = world.store.root / "dataset" / world.settings.publish.name
    found = run(
        "search_dataset.py", dataset, "One single red circle on a sandy beach", folder=tmp_path, **DEMO_MODEL
    )
    assert len(found) == 5
    scores = [float(line.split()[0]) for line in found]
    assert scores == sorted(scores, reverse=True)
    assert "circle" in found[0]


def test_custom_parts(
    minicrawl: MiniCrawl, miniweb: MiniWeb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    settings = load_settings(
        {
            "LAION_ETL_PARSE_FILTERS": "custom_parts:without_thumbnails",
            "LAION_ETL_PARSE_LANGUAGE_DETECTOR": "custom_parts:AllEnglish",
            "LAION_ETL_DOWNLOAD_IMAGE_RULES": "custom_parts:landscapes",
            "LAION_ETL_DOWNLOAD_CONNECT_TO": ",".join(miniweb.connect_to),
            "LAION_ETL_ALERTS_CHANNELS": "alert_file:AlertFile",
            "LAION_ETL_STORE": str(tmp_path),
        }
    )
    store = LocalStore(tmp_path)
    parse_partition("C", 0, [(0, str(minicrawl.wat_files[0]))], settings, store)
    table = pq.read_table(tmp_path / "pairs/C/part-00000.parquet")
    assert set(table["language"].to_pylist()) == {"en"}
    assert not [url for url in table["url"].to_pylist() if "thumb" in url.lower()]
    urls = sorted(url for url, status in minicrawl.expected.items() if status is DownloadStatus.SUCCESS)
    rows = laion_etl.download(urls[:12], None, tmp_path / "shards", settings).outcomes.to_pylist()
    assert {row["status"] for row in rows} == {"success", "refused_by_rule"}
    stored = [row for row in rows if row["status"] == "success"]
    assert all(row["original_width"] > row["original_height"] for row in stored)
    assert deliver(Alert(Kind.FAILED, "C", "run", stage="parse", reason="no disk"), settings) == ("file",)
    assert "cause: no disk" in (tmp_path / "alerts.log").read_text()


def test_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    images = [{"url": "/1.jpg", "caption": "A red car on a field"}]
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"page": "https://b.example/", "images": images}) + "\nbroken\n"
    )
    (tmp_path / "a.jsonl").write_text(json.dumps({"page": "https://a.example/", "images": images}) + "\n[]\n")
    settings = load_settings(
        {
            "LAION_ETL_PARSE_SOURCE": "json_lines:JsonLines",
            "LAION_ETL_CRAWL_SOURCE": str(tmp_path),
            "LAION_ETL_PARSE_JOBS": "1",
        }
    )
    [partition] = partitions("mine", settings)
    store = LocalStore(tmp_path)
    stats = parse_partition("mine", 0, partition.indexed_wat_files, settings, store)
    urls = pq.read_table(tmp_path / "pairs/mine/part-00000.parquet")["url"].to_pylist()
    assert urls == ["https://a.example/1.jpg", "https://b.example/1.jpg"]
    assert stats.details["records"] == {"input": 4, "kept": 2, "dropped": {"broken_json": 2}}


def test_own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    model = {f"LAION_ETL_{name}": value for name, value in DEMO_MODEL.items()}
    settings = load_settings(model | {"LAION_ETL_SAFETY_HEADS": "own_head:Drawing"})
    images = [jpeg(Scene(color, "star", "beach", "single")) for color in ("red", "blue")]
    table = laion_etl.Scorer(settings).score(images, ["One single star on a beach"] * 2)
    assert all(0 < value < 1 for value in table["pdrawing"].to_pylist())
    assert table.schema.field("pdrawing").metadata[b"laion_etl.head"] == b"drawing: two texts, version 1"


def test_small_crawl(settings: Settings, minicrawl: MiniCrawl, miniweb: MiniWeb, tmp_path: Path) -> None:
    pairs = laion_etl.read_wat(minicrawl.wat_files[0], Settings())
    rows = [row for table in pairs for row in table.to_pylist()]
    good = [row for row in rows if minicrawl.expected[row["url"]] is DownloadStatus.SUCCESS][::9][:20]
    missing = next(row for row in rows if minicrawl.expected[row["url"]] is DownloadStatus.HTTP_ERROR)
    links = [image(row["url"], row["caption"]) for row in (*good, missing)]
    write_wat(tmp_path / "small.wat.gz", [page_record("https://www.example.org/", links)])
    lines = run(
        "small_crawl.py",
        "my-crawl",
        "small.wat.gz",
        folder=tmp_path,
        DATABASE_URL=settings.core.database_url,
        DOWNLOAD_CONNECT_TO=",".join(miniweb.connect_to),
        **DEMO_MODEL,
    )
    stages, published = lines[:6], lines[6:]
    assert [line.split()[0] for line in stages] == ["parse", "load", "plan", "download", "score", "publish"]
    assert f"{len(links)} in, {len(good)} kept {{'http_error': 1}}" in stages[3]
    urls = {line.rpartition(" ")[2] for line in published}
    assert 0 < len(urls) == int(stages[5].split(" in, ")[1].split()[0])
    assert urls <= {row["url"] for row in good}


def cells(notebook: Path) -> list[ast.Module]:
    """The code of a notebook; its outputs are not stored."""
    found = json.loads(notebook.read_text())["cells"]
    assert all(cell["cell_type"] == "markdown" or not cell["outputs"] for cell in found)
    return [ast.parse("".join(cell["source"])) for cell in found if cell["cell_type"] == "code"]


def shown(cell: ast.Module, names: dict[str, object]) -> object:
    """What a notebook shows below a cell: the value of its last line."""
    last = cell.body[-1]
    assert isinstance(last, ast.Expr)
    before = ast.Module(cell.body[:-1], [])
    exec(compile(before, "cell", "exec"), names)  # noqa: S102 - as a notebook does
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307


def test_dataset_with_images(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/demo").mkdir(parents=True)
    (tmp_path / "data/demo/store").symlink_to(world.store.root)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    subsets, best, figures, languages = (
        shown(cell, names) for cell in cells(EXAMPLES / "dataset_with_images.ipynb")
    )
    assert subsets["laion-en"] > 0  # type: ignore[index]
    assert [row["similarity"] for row in best] == sorted((row["similarity"] for row in best), reverse=True)  # type: ignore[attr-defined]
    page = figures._repr_html_()  # type: ignore[attr-defined]
    assert page.count("<img src=") == page.count("data:image;base64,/9j/") > 3
    assert (subsets["laion-en"], "en") in languages  # type: ignore[index,operator]


def test_every_example_is_short_and_on_the_page() -> None:
    page = (ROOT / "docs/library.md").read_text()
    for notebook in EXAMPLES.glob("*.ipynb"):
        assert f"examples/{notebook.name}" in page
    for example in EXAMPLES.glob("*.py"):
        assert 10 <= len(example.read_text().splitlines()) <= 40
        assert f"examples/{example.name}" in page


def test_the_page_shows_lines_of_the_examples() -> None:
    """So what it shows has been run."""
    code = [line.strip() for example in EXAMPLES.glob("*.py") for line in example.read_text().splitlines()]
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    shown = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert shown
    assert [line for line in shown if line not in code] == []
