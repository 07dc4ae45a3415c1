"""laion_etl as a library: what it offers, what importing it costs, and how its parts refuse mistakes."""

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import laion_etl as le
from laion_etl.api.captions import checked_languages
from laion_etl.core.errors import InputError, LaionEtlError, SettingsError, StorageError
from laion_etl.core.schemas import (
    DATASET_SCHEMA,
    PAIR_SCHEMA,
    SCORED_SCHEMA,
    SHARD_SCHEMA,
    subset_of_language,
)
from laion_etl.dataset.subsets import LANGUAGE_SUBSETS
from laion_etl.io.tarshard import read_members
from laion_etl.minicrawl.build import MiniCrawl
from laion_etl.minicrawl.scenes import Scene
from laion_etl.minicrawl.web import MiniWeb
from laion_etl.settings import CoreSettings, ParseSettings, Settings
from tests.parse.wat_files import image, page_record, write_wat
from tests.score.conftest import TINY_SETTINGS, jpeg
from tests.search.conftest import World, world

__all__ = ["world"]

HEAVY = ("pyarrow", "numba", "numpy", "torch", "trio", "rich")


def in_new_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def scorer() -> le.Scorer:
    clip = replace(TINY_SETTINGS.clip, threshold_en=0.7, threshold_other=0.6)
    return le.Scorer(replace(TINY_SETTINGS, clip=clip))


@pytest.fixture
def dataset(world: World) -> le.Dataset:
    return le.open_dataset(
        world.store.root / "dataset" / world.settings.publish.name, settings=world.settings
    )


def test_importing_the_package_imports_none_of_the_heavy_ones() -> None:
    assert in_new_process(f"import laion_etl, sys; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    assert [name for name in le.__all__ if not hasattr(le, name)] == []
    assert set(le.__all__) <= set(dir(le))
    tree = ast.parse(Path(str(le.__file__)).read_text())
    typed = {
        alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(le.__all__) - {"__version__"} == typed - {None}
    with pytest.raises(AttributeError, match="no_such_name"):
        le.no_such_name  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize(
    "before",
    ["", "import laion_etl.download.stage", "from laion_etl import download", "import laion_etl.api.shards"],
)
def test_download_can_be_called_whatever_was_imported_before(before: str) -> None:
    program = (
        f"{before}\nimport laion_etl\nfrom laion_etl import download\nassert laion_etl.download is download\n"
    )
    refused = (
        "try:\n    download('https://a.example/')\nexcept laion_etl.LaionEtlError as error:\n    print(error)"
    )
    assert "give a list of at most" in in_new_process(program + refused)
    assert in_new_process(f"{program}import laion_etl.download.worker as w; print(w.__name__)").endswith(
        "worker"
    )


def test_the_funnel_of_a_wat_file_adds_up_while_and_after_it_is_read(minicrawl: MiniCrawl) -> None:
    pairs = le.read_wat(minicrawl.wat_files[0], Settings())
    rows = 0
    for table in pairs:
        assert table.schema == PAIR_SCHEMA
        rows += table.num_rows
        assert pairs.funnel.input == pairs.funnel.kept + sum(pairs.funnel.dropped.values())
    assert pairs.funnel.kept == rows > 0
    assert pairs.records.input == pairs.records.kept + sum(pairs.records.dropped.values())
    assert list(pairs) == []


def test_filters_of_the_call_come_after_those_of_the_settings(tmp_path: Path) -> None:
    links = [image(f"/{name}.jpg", f"A {name} on a green field") for name in ("cat", "dog", "car")]
    wat = write_wat(tmp_path / "a.wat.gz", [page_record("https://www.example.org/", links)])
    seen: list[int] = []

    def count(pairs: pa.Table) -> list[None]:
        seen.append(pairs.num_rows)
        return [None] * pairs.num_rows

    settings = Settings(parse=ParseSettings(filters=("tests.parse.test_custom_filters:without_cars",)))
    pairs = le.read_wat(wat, settings, filters=[count])
    assert sum(table.num_rows for table in pairs) == 2
    assert seen == [2]
    assert str(pairs.funnel) == "3 in, 2 kept; dropped: shows_a_car 1"


def test_a_wat_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaionEtlError, match=r"missing\.wat\.gz"):
        list(le.read_wat(tmp_path / "missing.wat.gz", Settings()))


def downloaded(minicrawl: MiniCrawl, miniweb: MiniWeb, out: Path, number: int = 0) -> le.Shard:
    urls = sorted(url for url, status in minicrawl.expected.items() if status == "success")[:3]
    captions = ["A red circle on the beach", None, "Ein roter Kreis auf einer grünen Wiese im Sommer"]
    return le.download(
        [*urls, "no url"], [*captions, "x"], out, Settings(), number, connect_to=miniweb.connect_to
    )


def test_a_shard_says_what_became_of_each_url(minicrawl: MiniCrawl, miniweb: MiniWeb, tmp_path: Path) -> None:
    shard = downloaded(minicrawl, miniweb, tmp_path, 7)
    table = shard.outcomes
    assert table.schema.equals(SHARD_SCHEMA)
    assert table["key"].to_pylist() == [f"00000000700{n:03d}" for n in range(4)]
    assert table["status"].to_pylist() == ["success"] * 3 + ["url_invalid"]
    assert table["language"].to_pylist()[:3] == ["en", "", "de"]
    assert (shard.funnel.input, shard.funnel.kept, shard.funnel.dropped) == (4, 3, {"url_invalid": 1})
    again = le.Shard.open(shard.path)
    assert (again.tar, again.parquet) == (shard.tar, shard.parquet)


def test_a_shard_is_never_overwritten(minicrawl: MiniCrawl, miniweb: MiniWeb, tmp_path: Path) -> None:
    downloaded(minicrawl, miniweb, tmp_path)
    with pytest.raises(StorageError, match="there is a shard; choose another number"):
        downloaded(minicrawl, miniweb, tmp_path)
    assert downloaded(minicrawl, miniweb, tmp_path, 1).funnel.kept == 3


def test_mistakes_in_a_call_are_refused_before_any_work(tmp_path: Path) -> None:
    url = "https://a.example/1.jpg"
    with pytest.raises(InputError, match="2 captions for 1 image"):
        le.download([url], ["a", "b"], tmp_path, Settings())
    with pytest.raises(InputError, match="one text for 1 image"):
        le.download([url], "a", tmp_path, Settings())
    with pytest.raises(InputError, match="at most 9 digits"):
        le.download([url], None, tmp_path, Settings(), number=10**9)
    with pytest.raises(TypeError, match="imagesize"):
        le.download([url], None, tmp_path, Settings(), imagesize=256)
    with pytest.raises(SettingsError, match="LAION_ETL_DOWNLOAD_IMAGE_SIZE"):
        le.download([url], None, tmp_path, Settings(), image_size=-1)
    with pytest.raises(InputError, match=r"does not end in \.tar"):
        le.Shard.open(tmp_path / "000000000.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_scored_as_its_images_are(
    scorer: le.Scorer, minicrawl: MiniCrawl, miniweb: MiniWeb, tmp_path: Path
) -> None:
    table = scorer.score(downloaded(minicrawl, miniweb, tmp_path))
    assert table.schema == SCORED_SCHEMA
    assert table.num_rows == 3
    reasons = table["reason"].to_pylist()
    assert reasons[1] == "unreadable"  # it has no caption
    assert table["similarity"].is_valid().to_pylist() == [True, False, True]
    with pytest.raises(InputError, match="it has its own"):
        scorer.score(le.Shard.open(tmp_path / "000000000.tar"), ["a"] * 3)


def test_images_are_scored_as_bytes_paths_and_urls_and_broken_ones_cost_only_themselves(
    scorer: le.Scorer, tmp_path: Path
) -> None:
    data = jpeg(Scene("red", "star", "beach", "single"))
    (tmp_path / "a.jpg").write_bytes(data)
    images = [data, tmp_path / "a.jpg", (tmp_path / "a.jpg").as_uri(), b"broken", b"\xff\xd8\xff broken"]
    table = scorer.score(images, ["One single red star on a sandy beach"] * 5)
    similarity = table["similarity"].to_pylist()
    assert similarity[0] == similarity[1] == similarity[2] > 0
    assert similarity[3:] == [None, None]
    assert table["reason"].to_pylist() == [None, None, None, "unreadable", "unreadable"]
    assert scorer.score([], []).num_rows == 0


def test_languages_choose_the_threshold(scorer: le.Scorer) -> None:
    data = jpeg(Scene("red", "star", "beach", "single"))
    table = scorer.score([data, data], ["One single red star"] * 2, languages=["EN", "de"])
    assert table["subset"].to_pylist() == ["laion-en", "laion-multi"]
    assert table["threshold"].to_pylist() == pytest.approx([0.7, 0.6])


@pytest.mark.parametrize(
    ("given", "code", "subset"),
    [
        ("EN", "en", "laion-en"),
        (" en_US", "en", "laion-en"),
        ("eng", "en", "laion-en"),
        ("zh-Hant", "zh", "laion-multi"),
        ("he", "iw", "laion-multi"),
        ("xx", "xx", "laion-multi"),
        ("none", "", "laion-nolang"),
        ("und", "", "laion-nolang"),
        (None, "", "laion-nolang"),
    ],
)
def test_languages_are_codes_however_they_are_written(given: str | None, code: str, subset: str) -> None:
    assert [subset_of_language(found) for found in checked_languages([given], 1)] == [subset]
    assert checked_languages([given], 1) == [code]


@pytest.mark.parametrize(
    ("images", "captions", "languages", "cause"),
    [
        ("a.jpg", ["a"], None, "cannot score one image"),
        (b"a", ["a"], None, "cannot score one image"),
        ([b"a"], ["a", "b"], None, "2 captions for 1 image"),
        ([b"a"], ["a"], ["en", "de"], "2 languages for 1 image"),
        ([b"a", b"b"], ["a", "b"], "en", "one text for 2 images"),
        ([b"a"], ["a"], ["english"], "language 'english': it is not a code"),
        ([b"a"], ["a"], [5], "language 5: it is not a code"),
        ([b"a"], [float("nan")], None, "caption 0: it is a float; give a text"),
        ([b"a", Path(__file__), None], ["a"] * 3, ["en"] * 3, "image 2: it is a NoneType; give a path"),
        (["/no/such/image.jpg"], ["a"], None, "/no/such/image.jpg"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    scorer: le.Scorer, images: object, captions: list[str], languages: list[str] | None, cause: str
) -> None:
    with pytest.raises(InputError, match=cause):
        scorer.score(images, captions, languages)  # type: ignore[arg-type]


def test_a_dataset_gives_its_rows_once_by_subset_and_column(dataset: le.Dataset) -> None:
    every = pa.concat_tables(dataset.rows())
    assert every.schema == DATASET_SCHEMA
    assert every.num_rows == len(set(every["SAMPLE_ID"].to_pylist())) == dataset.manifest.document["rows"]
    parts = [pa.concat_tables(dataset.rows(name, ["SAMPLE_ID"])) for name in LANGUAGE_SUBSETS[:2]]
    assert [part.column_names for part in parts] == [["SAMPLE_ID"]] * 2
    assert sum(part.num_rows for part in parts) == every.num_rows
    with pytest.raises(InputError, match=r"cannot read the subset 'laion-xx'.*laion-en"):
        dataset.rows("laion-xx")
    with pytest.raises(InputError, match=r"cannot read the column 'text'.*TEXT"):
        list(dataset.rows(columns=["text"]))


def test_images_of_rows_are_those_of_the_shards(world: World, dataset: le.Dataset) -> None:
    rows = next(dataset.rows("laion-en")).slice(3, 4).take([2, 0, 2])
    images = dataset.images(rows)
    assert images[0] == images[2] != images[1]
    batch = int(rows["key"][1].as_py()) // 100_000
    with world.store.open(f"scored/{rows['crawl'][1]}/{batch:09d}.tar") as tar:
        assert dict(read_members(tar))[f"{rows['key'][1]}.jpg"] == images[1]
    elsewhere = rows.set_column(rows.column_names.index("crawl"), "crawl", pa.array(["CC-MAIN-1999-01"] * 3))
    assert dataset.images(elsewhere) == [None] * 3


def test_a_crawl_needs_a_plain_name() -> None:
    with pytest.raises(InputError, match=r"cannot run '\.\./x'"):
        le.CrawlRun("../x", ["a.wat.gz"], Settings())


def test_files_of_a_crawl_are_cut_into_partitions(tmp_path: Path) -> None:
    settings = Settings(core=CoreSettings(store=str(tmp_path), wat_files_per_partition=2))
    run = le.CrawlRun("mine", ["a", tmp_path / "b", "c"], settings)
    numbered = [(part.number, part.indexed_wat_files) for part in run.partitions]
    assert numbered == [(0, [(0, "a"), (1, str(tmp_path / "b"))]), (1, [(2, "c")])]


def test_a_dataset_is_verified(dataset: le.Dataset) -> None:
    verdict = dataset.verify()
    assert (verdict.version, verdict.problems) == (dataset.version, [])


def test_a_dataset_is_searched_by_text(dataset: le.Dataset) -> None:
    found = dataset.search("One single red circle on a sandy beach", top=3, languages=("en",))
    assert found.column_names == ["score", *DATASET_SCHEMA.names]
    assert "circle" in found["TEXT"][0].as_py()
    assert set(found["LANGUAGE"].to_pylist()) == {"en"}
    with pytest.raises(InputError, match="empty text"):
        dataset.search(" ")
    with pytest.raises(TypeError, match="colour"):
        dataset.search("red", colour="red")


@pytest.mark.parametrize("path", ["", "laion", "data/laion", "dataset/no-such-dataset", "dataset/.."])
def test_what_is_not_a_dataset_cannot_be_opened(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LaionEtlError):
        le.open_dataset(path, settings=Settings())


def test_a_version_that_is_not_there_is_refused(world: World) -> None:
    path = world.store.root / "dataset" / world.settings.publish.name
    assert le.open_dataset(path, "CC-MAIN-TEST").version == "CC-MAIN-TEST"
    with pytest.raises(InputError, match="cannot find version 1999 of dataset laion"):
        le.open_dataset(f"{path}/", "1999")
