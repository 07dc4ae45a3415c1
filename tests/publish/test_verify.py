"""Two crawls published into one dataset, which is then damaged in different ways."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from laion_etl.core.errors import InputError, StoreOutageError
from laion_etl.dataset.manifest import NAME
from laion_etl.dataset.versions import Release, read_versions, write_versions
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish.diff import diff_versions
from laion_etl.publish.stage import publish_dataset
from laion_etl.publish.verify import verify_version
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, build_world, changed, write_world
from tests.test_cli import laion_etl

NEXT = "CC-MAIN-2026-47"
PART = f"dataset/laion/{CRAWL}/laion-en/part-00000.parquet"
OWN = (("red", "TEXT LIKE '%red%'"),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = LocalStore(tmp_path_factory.mktemp("whole"))
    settings = changed(Settings(), subsets=OWN)
    for crawl, first in ((CRAWL, 0), (NEXT, 3)):
        write_world(build_world(batches=2, first_batch=first), store, crawl=crawl)
        publish_dataset(crawl, settings, store)
    return store.root


@pytest.fixture
def damaged(tmp_path: Path, whole: Path) -> Store:
    shutil.copytree(whole, tmp_path / "copy")
    return LocalStore(tmp_path / "copy")


def problems(store: Store) -> dict[str, str]:
    return {problem.file: problem.what for problem in verify_version("laion", "", store).problems}


def rewrite_rows(store: Store, change: Callable[[pa.Table], pa.Table], name: str = PART) -> None:
    """Replace the rows of a file, and adapt the manifest and the list of versions."""
    table = change(pq.read_table(io.BytesIO(store.read(name))))
    with store.create(name) as file:
        pq.write_table(table, file)
    versions = read_versions("laion", store)
    manifest_name = Release("laion", NEXT).file(NAME)
    document = json.loads(store.read(manifest_name))
    for entry in document["files"]:
        if entry["name"] == f"../{name.removeprefix('dataset/laion/')}":
            entry |= {"rows": table.num_rows, "bytes": file.output.bytes, "sha256": file.output.sha256}
    manifest = store.write(manifest_name, json.dumps(document).encode())
    write_versions(versions.with_manifest(NEXT, manifest), store)


def test_a_whole_dataset_has_no_problem(whole: Path) -> None:
    verdict = verify_version("laion", "", LocalStore(whole))
    assert verdict.problems == []
    assert (verdict.version, verdict.rows) == (NEXT, 143)
    assert verify_version("laion", CRAWL, LocalStore(whole)).problems == []
    with pytest.raises(
        InputError, match=f"cannot find version 2019 of dataset laion: it has {CRAWL}, {NEXT};"
    ):
        verify_version("laion", "2019", LocalStore(whole))


def test_a_flipped_byte_is_found_in_any_file(damaged: Store) -> None:
    for name in (PART, f"dataset/laion/{NEXT}/_image_hashes.pq", f"dataset/laion/{NEXT}/report/index.html"):
        data = bytearray(damaged.read(name))
        data[len(data) // 2] ^= 1
        damaged.write(name, bytes(data))
        assert problems(damaged) == {name: "has other bytes than the manifest says"}
        data[len(data) // 2] ^= 1
        damaged.write(name, bytes(data))


def test_missing_and_extra_files_are_found(damaged: Store) -> None:
    extra = f"dataset/laion/{CRAWL}/laion-multi/part-00007.parquet"
    damaged.delete(PART)
    damaged.write(extra, b"PAR1")
    assert problems(damaged) == {PART: "is missing", extra: "is not in the manifest"}


def test_a_changed_manifest_or_card_is_found(damaged: Store) -> None:
    name = f"dataset/laion/{NEXT}/{NAME}"
    manifest = damaged.read(name)
    damaged.write("dataset/laion/README.md", b"---\nother: card\n")
    damaged.delete("dataset/laion/croissant.json")
    assert list(problems(damaged)) == ["dataset/laion/README.md", "dataset/laion/croissant.json"]
    damaged.write(name, manifest.replace(b'"rows": ', b'"rows": 1', 1))
    assert "its SHA-256 is not the one in versions.json" in problems(damaged)[name]


def test_a_part_that_cannot_be_checked_does_not_hide_damage_of_another(damaged: Store) -> None:
    versions, name = read_versions("laion", damaged), f"dataset/laion/{NEXT}/{NAME}"
    document = json.loads(damaged.read(name))
    [part] = [part for part in document["parts"] if part["crawl"] == CRAWL]
    part["settings"]["publish"]["subsets"] = 5
    write_versions(versions.with_manifest(NEXT, damaged.write(name, json.dumps(document).encode())), damaged)
    other = PART.replace(CRAWL, NEXT)
    damaged.write(other, damaged.read(other)[:-1])
    found = problems(damaged)
    assert found.keys() == {name, other}
    assert f"cannot check {CRAWL}: its settings in the manifest are invalid" in found[name]


def test_a_file_of_damaged_pages_does_not_hide_damage_of_another(damaged: Store) -> None:
    """Its bytes are those of the manifest: it was damaged before it was listed."""
    data = damaged.read(PART)
    written = damaged.write(PART, data[:4] + bytes(200) + data[204:])
    versions, name = read_versions("laion", damaged), f"dataset/laion/{NEXT}/{NAME}"
    document = json.loads(damaged.read(name))
    [entry] = [one for one in document["files"] if one["name"].endswith(PART.removeprefix("dataset/laion/"))]
    entry["sha256"] = written.sha256
    write_versions(versions.with_manifest(NEXT, damaged.write(name, json.dumps(document).encode())), damaged)
    other = PART.replace(CRAWL, NEXT)
    damaged.write(other, damaged.read(other)[:-1])
    found = problems(damaged)
    assert found[PART] == "cannot be read as parquet (it has a damaged page)"
    assert other in found


def test_an_outage_is_not_a_problem_of_the_dataset(damaged: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_: Store, name: str) -> None:
        raise StoreOutageError(f"cannot read {name}: unreachable")

    plain = type(damaged).open
    monkeypatch.setattr(
        type(damaged), "open", lambda self, name: (unreachable if name == PART else plain)(self, name)
    )
    with pytest.raises(StoreOutageError):
        verify_version("laion", "", damaged)


def test_wrong_counts_are_found(damaged: Store) -> None:
    rewrite_rows(damaged, lambda table: table.slice(1))
    name = f"dataset/laion/{NEXT}/{NAME}"
    found = [one.what for one in verify_version("laion", "", damaged).problems if one.file == name]
    assert any("says 143 rows, there are 142" in what for what in found)
    assert any("rows of laion-en, there are" in what for what in found)


def _first_row_twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table])


def _in_german(table: pa.Table) -> pa.Table:
    column = table.schema.get_field_index("LANGUAGE")
    languages = ["de", *table["LANGUAGE"].to_pylist()[1:]]
    return table.set_column(column, table.schema.field(column), pa.array(languages))


def _without_crawl(table: pa.Table) -> pa.Table:
    return table.drop_columns(["crawl"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_first_row_twice, "has rows whose SAMPLE_ID repeats or is out of order"),
        (_in_german, "has 1 row that do not belong there"),
        (_without_crawl, "does not have the columns of a published file"),
    ],
)
def test_rows_that_do_not_belong_are_found(
    damaged: Store, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    rewrite_rows(damaged, change)
    assert problems(damaged)[PART] == message


def test_a_row_in_two_language_subsets_is_found(damaged: Store) -> None:
    english = pq.read_table(io.BytesIO(damaged.read(PART)))
    column = english.schema.get_field_index("LANGUAGE")
    row = english.slice(0, 1).set_column(column, english.schema.field(column), pa.array(["de"]))
    name = f"dataset/laion/{CRAWL}/laion-multi/part-00000.parquet"
    rewrite_rows(damaged, lambda table: pa.concat_tables([row, table]), name)
    assert problems(damaged) == {f"dataset/laion/{NEXT}": "1 SAMPLE_IDs are in several files"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda found: found["files"][0].update(name="../../../secret"), "is outside the dataset"),
        (lambda found: found["files"][0].update(crawl="../../secret"), "invalid crawl '../../secret'"),
        (lambda found: found["parts"][0].update(crawl="../../../secret"), "invalid crawl '../../../secret'"),
        (lambda found: found["parts"][0].update(removals=["../secret"]), "invalid removal '../secret'"),
        (lambda found: found["parts"].extend(found["parts"][:1] * 500), f"lists {CRAWL} 501 times"),
        (lambda found: found["files"].append(found["files"][0]), f"lists {PART} 2 times"),
    ],
)
def test_a_manifest_that_names_other_files_or_one_twice_is_refused(
    damaged: Store, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    """It may be a stranger's; each mention of a part or file would be read."""
    name = f"dataset/laion/{NEXT}/{NAME}"
    document = json.loads(damaged.read(name))
    document["files"].sort(key=lambda file: file["name"] != f"../{PART.removeprefix('dataset/laion/')}")
    change(document)
    output = damaged.write(name, json.dumps(document).encode())
    write_versions(read_versions("laion", damaged).with_manifest(NEXT, output), damaged)
    [(file, what)] = problems(damaged).items()
    assert file == name
    assert problem in what


def test_the_difference_of_two_versions(damaged: Store) -> None:
    world = build_world(batches=3)
    world.batches[0][0]["caption"] = "another text"
    world.batches[0][1] |= {"similarity": 0.1, "reason": "low_similarity"}
    write_world(world, damaged)
    publish_dataset(CRAWL, changed(Settings(), subsets=OWN, aesthetic_min=4.5), damaged)
    found = diff_versions("laion", NEXT, f"{CRAWL}.2", damaged)
    by_subset = {one.subset: one for one in found.subsets}
    english = by_subset["laion-en"]
    added = [row for row in world.batches[2] if row["reason"] is None and row["language"] == "en"]
    assert (english.added, english.removed, english.changed) == (len(added), 1, 1)
    before = [row for n in (0, 1) for row in build_world(batches=2).batches[n] if row["reason"] is None]
    second = [row for row in build_world(2, first_batch=3).kept if row["language"] == "en"]
    kept = [row for row in before if row["language"] == "en"]
    assert english.unchanged == len(kept) - 2 + len(second)
    assert by_subset["laion-aesthetic"].added > 0
    assert [(one.crawl, one.setting, one.old, one.new) for one in found.settings] == [
        (CRAWL, "publish.aesthetic_min", 5.0, 4.5)
    ]
    assert all(f"/{CRAWL}.2/" in name for name in found.files_added)
    backwards = {one.subset: one for one in diff_versions("laion", f"{CRAWL}.2", NEXT, damaged).subsets}
    assert (backwards["laion-en"].added, backwards["laion-en"].removed) == (1, len(added))


def test_the_commands(damaged: LocalStore) -> None:
    good = laion_etl(damaged.root, "dataset", "verify", "--json", STORE=str(damaged.root))
    assert (good.returncode, json.loads(good.stdout.splitlines()[-1])["problems"]) == (0, [])
    done = laion_etl(damaged.root, "dataset", "diff", CRAWL, NEXT, "--json", STORE=str(damaged.root))
    assert {one["removed"] for one in json.loads(done.stdout.splitlines()[-1])["subsets"]} == {0}
    damaged.delete(PART)
    bad = laion_etl(damaged.root, "dataset", "verify", STORE=str(damaged.root))
    assert bad.returncode == 1
    assert f"{PART}: is missing" in bad.stdout


def _other_hash(table: pa.Table) -> pa.Table:
    changed_hash = pc.add(table["hash"], pa.scalar(1, pa.int64()))
    return table.set_column(table.schema.get_field_index("hash"), table.schema.field("hash"), changed_hash)


def _other_text(table: pa.Table) -> pa.Table:
    texts = pa.array(["another text", *table["TEXT"].to_pylist()[1:]], table["TEXT"].type)
    return table.set_column(table.schema.get_field_index("TEXT"), table.schema.field("TEXT"), texts)


def _low_similarity(table: pa.Table) -> pa.Table:
    low = pa.array([0.1, *table["similarity"].to_pylist()[1:]], pa.float32())
    field = table.schema.field("similarity")
    return table.set_column(table.schema.get_field_index("similarity"), field, low)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_other_hash, r"has \d+ rows whose hash or pair_id is not that of URL and TEXT"),
        (_other_text, "has 1 row whose hash or pair_id is not that of URL and TEXT"),
        (_low_similarity, "has 1 row whose similarity is below 0.28, which the manifest states"),
    ],
)
def test_rows_that_contradict_themselves_or_the_manifest_are_found(
    damaged: Store, change: Callable[[pa.Table], pa.Table], what: str
) -> None:
    rewrite_rows(damaged, change)
    assert re.match(what, problems(damaged)[PART])


def _rewrite(store: Store, file: str, change: Callable[[str], str]) -> str:
    """Change a file of the current version together with its digests; return its name."""
    name, manifest_name = (Release("laion", NEXT).file(one) for one in (file, NAME))
    before = store.read(name).decode()
    assert change(before) != before
    output = store.write(name, change(before).encode())
    document = json.loads(store.read(manifest_name))
    for entry in document["files"]:
        if entry["name"] == file:
            entry |= {"bytes": output.bytes, "sha256": output.sha256}
    written = store.write(manifest_name, json.dumps(document).encode())
    write_versions(read_versions("laion", store).with_manifest(NEXT, written), store)
    return name


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("image links with", "photograph links with", "image links as the manifest does"),
        ('config_name: "laion-en"', 'config_name: "laion-fr"', "names other subsets .*: laion-en, laion-fr"),
        ("license: other", "license: cc0-1.0", "does not state the licence"),
        ("opt-outs were honoured:", "opt-outs were not honoured:", "whether opt-outs were honoured"),
        ("Texts under 5 ", "Texts under 6 ", "texts have 5 characters at least"),
        ("## Uses", "This version went through 2 requests\n\n## Uses", "names removal requests"),
    ],
)
def test_a_card_that_says_otherwise_than_the_manifest_is_found(
    damaged: Store, old: str, new: str, what: str
) -> None:
    name = _rewrite(damaged, "README.md", lambda text: text.replace(old, new))
    assert re.search(what, problems(damaged)[name])


def test_a_report_with_other_counts_and_stray_files_are_found(damaged: Store) -> None:
    rows = json.loads(damaged.read(f"dataset/laion/{NEXT}/manifest.json"))["parts"][1]["rows"]
    name = _rewrite(damaged, "report/index.html", lambda text: text.replace(f"{rows:,}", "1"))
    damaged.write("dataset/laion/notes.txt", b"?")
    found = problems(damaged)
    assert found[name] == f"does not say {rows:,} rows as the manifest does"
    assert found["dataset/laion/notes.txt"] == "is of no version, and publishing has not written it"


def test_counts_of_a_crawl_that_the_manifest_has_wrong_are_found(damaged: Store) -> None:
    name = Release("laion", NEXT).file(NAME)
    document = json.loads(damaged.read(name))
    document["parts"][0]["subsets"]["laion-multi"] += 1
    written = damaged.write(name, json.dumps(document).encode())
    write_versions(read_versions("laion", damaged).with_manifest(NEXT, written), damaged)
    assert re.match(rf"says \d+ rows of laion-multi of {CRAWL}, there are \d+", problems(damaged)[name])
