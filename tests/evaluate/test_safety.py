"""Safety tags and scores against a user's own labels."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.evaluate.label_file import read_rows
from laion_etl.evaluate.safety import Labelled, measure
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.scenes import Scene
from tests.score.conftest import CRAWL, fitting, jpeg, read_parquet, score, set_environment, write_shard

RUNNER = CliRunner()
SAFE = Scene("red", "star", "beach", "two")
UNSAFE = Scene("pink", "circle", "wood", "single", hazard=True)


def labelled(unsafe: bool, tag: str, punsafe: float, underage: bool | None = None) -> Labelled:
    return Labelled(unsafe, tag, punsafe, underage, suspected=punsafe > 0.5)


def test_precision_and_recall_are_those_of_their_definitions() -> None:
    found = measure(
        [
            labelled(True, "NSFW", 0.9, underage=True),
            labelled(True, "UNSURE", 0.6, underage=False),
            labelled(True, "UNLIKELY", 0.2),
            labelled(False, "NSFW", 0.7),
            labelled(False, "UNLIKELY", 0.1, underage=True),
        ],
        not_scored=2,
    )
    by_rule = {one.rule: one for one in found.rules}
    assert (found.samples, found.unsafe, found.not_scored) == (5, 3, 2)
    tag = by_rule["tag NSFW"]
    assert (tag.found, tag.right, tag.precision, tag.recall) == (2, 1, 1 / 2, 1 / 3)
    either = by_rule["tag NSFW or UNSURE"]
    assert (either.found, either.right, either.precision, either.recall) == (3, 2, 2 / 3, 2 / 3)
    assert (by_rule["punsafe >= 0.75"].precision, by_rule["punsafe >= 0.75"].recall) == (1, 1 / 3)
    assert by_rule["punsafe >= 0.9"].found == 1
    under_age = by_rule["suspected under age"]
    assert (under_age.found, under_age.right, under_age.recall) == (2, 1, 1 / 2)
    assert found.best_limit == 0.2, "all unsafe ones and one safe one: F1 is 6/7"
    assert by_rule["punsafe >= 0.2"].recall == 1


def test_what_is_not_defined_is_none() -> None:
    found = measure([labelled(False, "UNLIKELY", 0.1)], 0)
    assert found.best_limit is None
    assert {one.recall for one in found.rules} == {None}
    with pytest.raises(InputError, match="none of the 3 labelled samples has a score"):
        measure([], 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "labels.csv: No such file or directory"),
        (b"", "it needs a first line with the columns image and label"),
        (b"a.jpg,1\n", "it needs a first line with the columns image and label"),
        (b"image,label\n", "it has no labels"),
        (b"image,label\na.jpg,yes\n", "line 2: label is 'yes', which is not 1 or 0"),
        (b"image,label\n\na.jpg\n", "line 3: it has 1 field, the first line has 2"),
        (b"image,label,label\na.jpg,1,0\n", "each once"),
        (b"image,label\na.jpg,1,2\n", "line 2: it has 3 fields"),
        (b"image,label\nabsent.jpg,1\n", "line 2: the image 'absent.jpg' cannot be opened"),
        (b"image,label\n" + b"x" * 9_000 + b",1\n", "line 2: the image"),
        (b"image,label\n\xff\xfe,1\n", "save it as CSV in UTF-8"),
        (b"image,label,underage\n.,1,maybe\n", "line 2: underage is 'maybe'"),
    ],
)
def test_a_label_file_that_cannot_be_used_is_one_plain_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    path = tmp_path / "labels.csv"
    if content is not None:
        path.write_bytes(content)
    set_environment(monkeypatch, tmp_path / "store")
    result = RUNNER.invoke(app, ["model", "eval", "safety", "--labels", str(path)])
    assert result.exit_code != 0
    error = result.stderr or str(result.exception)
    assert message in error
    assert "cannot read" in error


@pytest.mark.parametrize(
    "text", ["image,label\na.jpg,1\n", "\ufeffimage;label\r\na.jpg;1\r\n", "Image\tLabel\n a.jpg \t 1\n"]
)
def test_files_of_spreadsheets_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode())
    [row] = read_rows(path, ("image", "label"))
    assert (row.number, row.values) == (2, {"image": "a.jpg", "label": "1"})


def test_images_and_scored_samples_are_measured_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, tmp_path / "store")
    labels = tmp_path / "labels.csv"
    lines = ["image,label,caption,underage"]
    for number, scene in enumerate((SAFE, UNSAFE, SAFE, UNSAFE)):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(scene, number))
        lines.append(f"{number}.jpg,{number % 2},{'a child' if number == 3 else ''},{int(number == 3)}")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    labels.write_text("\n".join([*lines, "broken.jpg,0,,0"]))
    result = RUNNER.invoke(app, ["model", "eval", "safety", "--labels", str(labels), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["samples"], found["unsafe"], found["not_scored"]) == (4, 2, 1)
    rules = {one["rule"]: one for one in found["rules"]}
    assert rules["tag NSFW or UNSURE"]["recall"] == rules["tag NSFW or UNSURE"]["precision"] == 1
    assert rules["suspected under age"]["recall"] == rules["suspected under age"]["precision"] == 1
    assert (found["model"], len(found["weights_sha256"])) == ("laion-etl-tiny/scenes", 64)
    assert found["safety"]["prompts"]["name"] == "laion-etl-tiny.json"
    assert "the best limit of punsafe for these labels" in result.stderr

    store = LocalStore(tmp_path / "store")
    write_shard(store, [fitting(SAFE), fitting(UNSAFE, seed=1)])
    stats = score(store)
    assert "drawn scenes only" in stats.details["safety"]["prompts"]["validation"]
    keys = [row["key"] for row in read_parquet(store)]
    labels.write_text(f"key,label\n{keys[0]},0\n{keys[1]},1\n")
    command = ["model", "eval", "safety", "--labels", str(labels), "--crawl", CRAWL]
    result = RUNNER.invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["samples"], found["unsafe"]) == (2, 1)
    assert found["models"][0].startswith("laion-etl-tiny/scenes, weights")
    assert "Prompts laion-etl-tiny.json" in found["safety"][0]
    labels.write_text(f"key,label\n{keys[0]},0\nnone,1\n")
    result = RUNNER.invoke(app, command)
    assert "line 3: CC-MAIN-TEST has no scored sample 'none'" in (result.stderr or str(result.exception))
    labels.write_text(f"key,label\n{keys[0]},0\n{keys[0]},1\n")
    result = RUNNER.invoke(app, command)
    assert "line 3: it has the key of line 2" in (result.stderr or str(result.exception))
