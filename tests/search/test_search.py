"""Searching: by text, image and sample, through filters, from Python and from the command line."""

import io
import json
import random
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError, MissingInputError
from laion_etl.core.one_line import one_line
from laion_etl.minicrawl.held_out import photo
from laion_etl.minicrawl.scenes import Scene
from laion_etl.score.model import ClipModel
from laion_etl.search.filters import Filters
from laion_etl.search.query import OpenPart, SearchIndex, check_model
from laion_etl.search.query_encoder import QueryEncoder, detect_format, stored_image
from tests.score.conftest import CRAWL, jpeg, set_environment
from tests.search.conftest import BY_SA, World

RUNNER = CliRunner()
QUERY = "a single red circle on a sandy beach"
CIRCLE = Scene("red", "circle", "beach", "single")


def captions(index: SearchIndex, vector: np.ndarray, count: int) -> list[str]:
    return [hit.row["TEXT"] for hit in index.search(vector, count, Filters())]


def test_a_text_finds_the_images_that_show_it(opened: SearchIndex, encoder: QueryEncoder) -> None:
    hits = opened.search(encoder.text("a single blue circle on a sandy beach"), 2, Filters())
    assert all("blue circle" in hit.row["TEXT"] for hit in hits)
    assert hits[0].score >= hits[1].score > 0.7


def test_an_image_finds_those_like_it(opened: SearchIndex, encoder: QueryEncoder) -> None:
    vector = encoder.image(jpeg(CIRCLE, seed=77))
    assert all("red circle" in text for text in captions(opened, vector, 2))


def test_a_sample_finds_those_like_it_and_not_itself(opened: SearchIndex) -> None:
    [sample] = [row for row in opened.parts[0].rows.to_pylist() if row["key"].endswith("100000")]
    hits = opened.like(sample["SAMPLE_ID"], 5, Filters())
    assert len(hits) == 5
    assert sample["SAMPLE_ID"] not in [hit.sample_id for hit in hits]
    with pytest.raises(MissingInputError, match="cannot find sample 9"):
        opened.like(9, 5, Filters())


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (Filters(), lambda row: row["NSFW"] == "UNLIKELY"),
        (Filters(unsafe=True), bool),
        (Filters(languages=("de",), unsafe=True), lambda row: row["LANGUAGE"] == "de"),
        (Filters(languages=("de", "en"), unsafe=True), bool),
        (Filters(min_similarity=0.9, unsafe=True), lambda row: row["similarity"] >= np.float32(0.9)),
        (Filters(min_aesthetic=9.5, unsafe=True), lambda row: row["aesthetic"] >= 9.5),
        (Filters(languages=("DE",), unsafe=True), lambda row: row["LANGUAGE"] == "de"),
        (Filters(languages=("de-CH",), unsafe=True), lambda row: row["LANGUAGE"] == "de"),
        (Filters(languages=("none",), unsafe=True), lambda row: row["LANGUAGE"] == "nolang"),
        (Filters(license="BY-SA", unsafe=True), lambda row: row["LICENSE"] == BY_SA),
        (Filters(license="known", unsafe=True), lambda row: row["LICENSE"] == BY_SA),
        (Filters(license="by-sa", unsafe=True), lambda row: row["LICENSE"] == BY_SA),
        (Filters(license=BY_SA, unsafe=True), lambda row: row["LICENSE"] == BY_SA),
        (Filters(license="by", unsafe=True), lambda row: not row),
        (Filters(subset="laion-multi", unsafe=True), lambda row: row["LANGUAGE"] == "de"),
        (Filters(subset="laion-high-resolution", unsafe=True), lambda row: not row),
        (Filters(domain="Images.Example", unsafe=True), bool),
        (Filters(domain="images.example.", unsafe=True), bool),
        (Filters(domain="example.org", unsafe=True), lambda row: not row),
    ],
)
def test_filters_leave_exactly_what_passes(opened: SearchIndex, filters: Filters, passes: object) -> None:
    rows = opened.parts[0].rows.to_pylist()
    expected = {row["SAMPLE_ID"] for row in rows if passes(row)}  # type: ignore[operator]
    vector = opened.parts[0].vector(3)
    found = [hit.sample_id for hit in opened.search(vector, 100, filters)]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_an_unknown_subset_is_an_error_that_names_the_known_ones(opened: SearchIndex) -> None:
    with pytest.raises(InputError, match="laion-multi"):
        opened.search(np.zeros(64), 1, Filters(subset="laion"))


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(domain="www.example.org"), "it is a host of example.org"),
        (Filters(domain="https://example.org/"), "it is not a domain"),
        (Filters(domain="two words"), "it is not a domain"),
        (Filters(license="bysa"), "it is not a type of Creative Commons"),
    ],
)
def test_a_filter_that_no_image_can_pass_is_an_error(
    opened: SearchIndex, filters: Filters, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        opened.search(np.zeros(64), 1, filters)


def test_a_filtered_search_through_the_graph_returns_as_many_as_asked_for(opened: SearchIndex) -> None:
    [part] = opened.parts
    graph_only = replace(part, exact_rows=20)
    vector = part.vector(3)
    for filters in (Filters(), Filters(languages=("de",)), Filters(license="known", unsafe=True)):
        for wanted in (1, 5, 15, 40):
            rows, cosines = graph_only.nearest(vector, wanted, filters)
            expected, scores = part.nearest(vector, wanted, filters)
            assert len(rows) == len(expected) == min(wanted, int(part.passed(filters).rows.sum()))
            assert np.allclose(cosines, scores, atol=1e-3)


def test_what_passes_the_filters_is_found_however_far_it_lies(opened: SearchIndex) -> None:
    [part] = opened.parts
    far = replace(part, exact_rows=1)
    assert isinstance(far, OpenPart)
    vector = -part.vector(3)
    filters = Filters(languages=("en",), unsafe=True)
    rows, _ = far.nearest(vector, 3, filters)
    assert rows.tolist() == part.nearest(vector, 3, filters)[0].tolist()


def test_a_model_that_did_not_score_the_dataset_is_refused(opened: SearchIndex) -> None:
    check_model(opened, "the same", opened.stats.details["weights_sha256"])
    with pytest.raises(InputError, match="laion-etl-tiny/scenes"):
        check_model(opened, "ViT-B-32/openai", "0" * 64)


def test_hostile_images_are_refused_in_one_line(encoder: QueryEncoder) -> None:
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    good = jpeg(CIRCLE)
    for data, message in (
        (b"", "not a JPEG"),
        (b"<svg onload=alert(1)>", "not a JPEG"),
        (b"GIF89a" + bytes(100), "not a JPEG"),
        (good[: len(good) // 2], "damaged"),
        (b"\xff\xd8\xff" + bytes(5_000), "damaged"),
        (bomb.getvalue(), "too large"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.image(data)
    assert encoder.image(good).shape == (64,)
    with pytest.raises(InputError, match="empty"):
        encoder.text("  ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_image_formats_are_detected_from_the_first_bytes(kind: str) -> None:
    file = io.BytesIO()
    photo(CIRCLE, random.Random(1)).save(file, kind)
    assert detect_format(file.getvalue()) == {"JPEG": "jpg"}.get(kind, kind.lower())


def test_the_setting_of_preparers_limits_the_processes_for_queries(
    tiny_model: ClipModel, world: World
) -> None:
    settings = replace(world.settings, clip=replace(world.settings.clip, preparers=7))
    before = set(threading.enumerate())
    with QueryEncoder(tiny_model, settings):
        assert len(set(threading.enumerate()) - before) == 7  # one for each process


def test_thumbnails_are_small_squares_of_the_stored_image(
    opened: SearchIndex, encoder: QueryEncoder, world: World
) -> None:
    hit = opened.search(encoder.text(QUERY), 1, Filters())[0]
    found = stored_image(hit, world.store)
    assert found is not None
    assert found[0] == "jpg"
    small = encoder.thumbnail(*found)
    assert small is not None
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == ("WEBP", (256, 256))
    assert encoder.thumbnail("jpg", found[1][:300]) is None


def test_the_search_command_prints_a_table_that_fits_eighty_columns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_environment(monkeypatch, folder)
    monkeypatch.setenv("COLUMNS", "80")
    image = tmp_path / "circle.jpg"
    image.write_bytes(jpeg(CIRCLE, seed=5))
    by_text = RUNNER.invoke(app, ["search", "query", QUERY, "--top", "3", "--language", "en", "--json"])
    assert by_text.exit_code == 0, by_text.output
    assert max(map(len, by_text.output.splitlines()[:-1])) <= 80
    found = json.loads(by_text.output.splitlines()[-1])
    assert found["version"] == f"laion/{CRAWL}"
    assert "red circle" in found["results"][0]["TEXT"]
    assert isinstance(found["results"][0]["SAMPLE_ID"], str)  # JavaScript would round the number
    assert found["results"][0]["URL"] in by_text.output
    by_image = RUNNER.invoke(app, ["search", "query", "--image", str(image), "--top", "1"])
    assert "red circle" in " ".join(by_image.output.split())
    like = RUNNER.invoke(app, ["search", "query", "--like", found["results"][0]["SAMPLE_ID"], "--top", "2"])
    assert like.exit_code == 0, like.output
    two = RUNNER.invoke(app, ["search", "query", QUERY, "--image", str(image)])
    assert two.exit_code == 2


def test_captions_can_not_move_the_cursor_of_a_terminal() -> None:
    assert one_line("red\x1b[2J circle\n\u202etxt.exe") == "red [2J circle  txt.exe"


def test_the_index_command_says_how_to_search(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, folder)
    done = RUNNER.invoke(app, ["search", "index", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1])["kept"] == 72
    assert "laion-etl search" in done.output
    missing = RUNNER.invoke(app, ["search", "query", QUERY, "--name", "other"])
    assert isinstance(missing.exception, InputError)
    assert "publish a crawl" in str(missing.exception)
