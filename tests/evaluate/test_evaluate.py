"""Evaluations of the demo's model, measured as in the papers."""

import io
import json
import random
import re
import threading
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError, ModelError
from laion_etl.core.schemas import scored_stem
from laion_etl.dataset.scored import find_scored
from laion_etl.evaluate.calibrate import (
    Similarities,
    propose,
    propose_from_labels,
    read_labels,
    read_similarities,
)
from laion_etl.evaluate.embed import embedded
from laion_etl.evaluate.evaluation_set import embed_folder
from laion_etl.evaluate.image_files import files_of
from laion_etl.evaluate.retrieval import recall, shard_recall
from laion_etl.evaluate.zero_shot import (
    alike,
    class_embeddings,
    class_mapping,
    classify,
    image_folder,
    templates,
    web_dataset,
)
from laion_etl.io.storage import LocalStore
from laion_etl.io.tarshard import finish, write_member
from laion_etl.minicrawl.held_out import photo
from laion_etl.minicrawl.scenes import Scene
from laion_etl.score.model import ClipModel
from tests.score.conftest import CRAWL, Entry, fitting, jpeg, score, set_environment, write_shard

pytestmark = pytest.mark.slow

SHAPES = ("star", "heart", "circle")
NAMES = [f"single red {shape} on a sandy beach" for shape in SHAPES]
RUNNER = CliRunner()


def image(shape: str, seed: int) -> bytes:
    file = io.BytesIO()
    photo(Scene("red", shape, "beach", "single"), random.Random(seed)).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    for shape, name in zip(SHAPES, NAMES, strict=True):
        folder = images / name.replace(" ", "_")
        folder.mkdir(parents=True)
        for seed in range(8):
            (folder / f"{seed}.jpeg").write_bytes(image(shape, seed))
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_bytes(b"none either")
    return images


def test_zero_shot_on_a_folder_and_on_tars_is_the_same(
    folder: Path, tiny_model: ClipModel, tmp_path: Path
) -> None:
    names, images = image_folder(folder)
    assert names == sorted(NAMES)
    found = classify(tiny_model, names, images, templates("photo"), 1)
    assert (found.images, found.unreadable) == (24, 1)
    assert found.top1 == plain_top1(tiny_model, folder, names) > 1 / 3
    assert found.top5 == 1.0
    tar = tmp_path / "all.tar"
    with tar.open("wb") as file:
        for number, ((ending, data), label) in enumerate(image_folder(folder)[1]):
            write_member(file, f"{number}.{ending}", data)
            write_member(file, f"{number}.cls", str(label).encode())
        write_member(file, "other.tiff", b"II*\0")  # a format that is not decoded is counted, as in a folder
        write_member(file, "other.cls", b"0")
        finish(file)
    of_tar = classify(tiny_model, names, web_dataset([tar], names), templates("photo"), 1)
    assert of_tar == replace(found, unreadable=2)


def test_the_setting_of_preparers_limits_the_processes_of_an_evaluation(tiny_model: ClipModel) -> None:
    before = set(threading.enumerate())

    def images() -> Iterator[tuple[tuple[str, bytes], int]]:
        assert len(set(threading.enumerate()) - before) == 7  # one for each process
        yield ("jpg", image("star", 0)), 1

    [(vectors, labels, unreadable)] = embedded(tiny_model, images(), 7)
    assert (len(vectors), labels, unreadable) == (1, [1], 0)


def test_the_images_of_a_folder_become_an_evaluation_set(folder: Path, tiny_model: ClipModel) -> None:
    stars = sorted(folder.rglob("*.jpeg"))[:8]
    whole = Image.open(stars[1])
    whole.save(stars[1], "PNG")  # an image is what its bytes say
    for ending in ("bmp", "gif", "tiff"):
        whole.save(folder / f"other.{ending}")
    unreadable = r"4 of 28 cannot be read \(other.bmp, .*broken.jpg\); convert them to PNG or remove"
    with pytest.raises(InputError, match=unreadable):
        embed_folder("val", folder, files_of(folder)[0], tiny_model, 1)
    assert classify(tiny_model, NAMES, image_folder(folder)[1], templates("photo"), 1).unreadable == 1
    for path in (*folder.rglob("broken.jpg"), *folder.glob("other.*")):
        path.unlink()
    assert [path.name for path in files_of(folder)[1]] == ["notes.txt"]
    found = embed_folder("val", folder, files_of(folder)[0], tiny_model, 1)
    assert found.is_of(f"{tiny_model.name}, weights {tiny_model.weights_sha256[:12]}, fp32 on cpu")
    first = Image.open(sorted(folder.rglob("*.jpeg"))[0])
    expected = tiny_model.embed_images([tiny_model.preprocess(first)])[0]
    assert found.vectors.shape == (24, tiny_model.dim)
    assert float(found.vectors[0].astype(np.float32) @ expected) > 0.999
    with pytest.raises(InputError, match="it has none; name a folder"):
        embed_folder("val", folder / "empty", files_of(folder / "empty")[0], tiny_model, 1)


def plain_top1(model: ClipModel, folder: Path, names: list[str]) -> float:
    """Image by image with open_clip's transform and one prompt."""
    classes = model.embed_texts([f"a photo of a {name}." for name in names])
    right = []
    for label, name in enumerate(names):
        for file in sorted((folder / name.replace(" ", "_")).glob("*.jpeg")):
            with Image.open(file) as image:
                cosines = classes @ model.embed_images([model.preprocess(image)])[0]
            right.append(int(cosines.argmax()) == label)
    return sum(right) / len(right)


def test_a_class_is_the_mean_of_its_normalised_prompts(tiny_model: ClipModel) -> None:
    prompts = templates("simple")
    [row] = class_embeddings(tiny_model, ["red star"], prompts)
    each = np.stack([tiny_model.embed_texts([prompt("red star")])[0] for prompt in prompts])
    mean = each.sum(axis=0)
    assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    assert (len(templates("openai")), len(prompts)) == (80, 7)


def test_an_invalid_test_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read classes from"):
        image_folder(tmp_path)
    (tmp_path / "cats").mkdir()
    with pytest.raises(InputError, match="1 class, 2 names"):
        image_folder(tmp_path, ["a", "b"])
    with pytest.raises(InputError, match="unknown prompts 'poem'"):
        templates("poem")
    with (tmp_path / "bad.tar").open("wb") as file:
        write_member(file, "0.cls", b"7")
        finish(file)
    with pytest.raises(InputError, match=r"invalid class '7' in 0\.cls; expected 0 to 1"):
        list(web_dataset([tmp_path / "bad.tar"], ["a", "b"]))
    (tmp_path / "cut.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match="cannot read"):
        list(web_dataset([tmp_path / "cut.tar"], ["a"]))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a/0.jpg", "a/0.cls", "a/1.cls", "a/1.png"], [0, 1]),
        (["v1.0/0.jpg", "v1.0/0.cls", "v1.0/1.jpg", "v1.0/1.cls"], [0, 1]),
        (["0.JPG", "0.CLS", "0.json"], [0]),
        (["0.seg.png", "0.cls", "0.jpg", "0.png"], [0]),
        (["._0.jpg", "0.cls", "0.jpg", "names.txt", "LICENCE"], [0]),
        (["._0.jpg", "0.jpg", "._0.cls", "0.cls"], [0]),
        (["0.jpg", "LICENCE", "0.cls"], [0]),
        (["0.cls", "1.cls", "1.jpg"], [0, 1]),
    ],
)
def test_samples_of_a_tar_are_named_as_in_webdataset(
    tmp_path: Path, names: list[str], found: list[int]
) -> None:
    assert [label for _, label in web_dataset([tar_of(tmp_path, names)], ["a", "b"])] == found


def test_an_image_without_a_class_is_an_error(tmp_path: Path) -> None:
    path = tar_of(tmp_path, ["0.jpg", "0.cls", "x/1.jpg", "x/1.json"])
    with pytest.raises(InputError, match=r"the sample 'x/1': it has no \.cls member"):
        list(web_dataset([path], ["a", "b"]))


@pytest.mark.parametrize("label", ["²", "٠", "9" * 5_000, "", "-1", "1.0", "nan"])
def test_a_class_that_is_not_a_number_is_named(tmp_path: Path, label: str) -> None:
    with (tmp_path / "0.tar").open("wb") as file:
        write_member(file, "0.cls", label.encode())
        finish(file)
    with pytest.raises(InputError, match=r"invalid class .* in 0\.cls"):
        list(web_dataset([tmp_path / "0.tar"], ["a", "b"]))


def tar_of(folder: Path, names: list[str]) -> Path:
    """A tar; the classes are those of the numbers in the names of their members."""
    with (folder / "0.tar").open("wb") as file:
        for name in names:
            number = name.rpartition("/")[2].partition(".")[0]
            write_member(file, name, number.encode() if name.lower().endswith("cls") else b"data")
        finish(file)
    return folder / "0.tar"


def test_class_folders_may_be_nested_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    for name in ("10", "9", ".ipynb_checkpoints", "9/deep/er", "9/.cache"):
        (tmp_path / name).mkdir(parents=True)
    for name in (
        "9/1.jpg",
        "9/deep/er/2.JPG",
        "9/.cache/3.jpg",
        "9/._4.jpg",
        "10/5.jpg",
        ".ipynb_checkpoints/6.jpg",
    ):
        (tmp_path / name).write_bytes(b"data")
    names, images = image_folder(tmp_path)
    assert (names, [label for _, label in images]) == (["9", "10"], [0, 0, 1])
    (tmp_path / "²").mkdir()
    assert image_folder(tmp_path)[0] == ["10", "9", "²"]


def test_recall_counts_ranks() -> None:
    images = np.eye(4, dtype=np.float32)
    texts = images[[0, 1, 3, 2]]  # the last two captions are swapped
    found = recall(images, texts, range(4), ks=(1, 4))
    assert found.image_of_text == {1: 0.5, 4: 1.0}
    assert found.text_of_image == {1: 0.5, 4: 1.0}


def test_each_of_several_captions_is_right_for_its_image() -> None:
    """The figures equal those of CLIP_benchmark, counted one by one."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(30, 8)).astype(np.float32)
    owners = [place for place in range(30) for _ in range(place % 5 + 1)]
    texts = images[owners] + rng.normal(size=(len(owners), 8)).astype(np.float32) * 0.8
    found = recall(images, texts, owners)
    cosines = texts @ images.T
    for k in (1, 5, 10):
        nearest_images = np.argsort(-cosines, axis=1)[:, :k]
        nearest_texts = np.argsort(-cosines.T, axis=1)[:, :k]
        by_text = [owner in row for owner, row in zip(owners, nearest_images, strict=True)]
        by_image = [place in np.asarray(owners)[row] for place, row in enumerate(nearest_texts)]
        assert found.image_of_text[k] == pytest.approx(np.mean(by_text))
        assert found.text_of_image[k] == pytest.approx(np.mean(by_image))
    assert (found.pairs, found.images) == (len(owners), 30)
    assert 0 < found.text_of_image[1] < 1


@pytest.mark.parametrize("value", [0.5, 0.0, float("nan")])
def test_embeddings_that_are_all_the_same_find_nothing(value: float) -> None:
    same = np.full((20, 4), value, np.float32)
    found = recall(same, same, range(20))
    assert found.image_of_text == found.text_of_image == {1: 0.0, 5: 0.0, 10: 0.0}


def test_folders_with_numbers_are_in_order_of_the_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0, 1):
        (tmp_path / str(number)).mkdir()
    names, _ = image_folder(tmp_path, ["a", "b", "c", "d"])
    assert class_mapping([tmp_path], names) == ["0: a", "1: b", "2: c", "10: d"]
    assert class_mapping([tmp_path / "0.tar"], ["a", "b"]) == ["0: a", "1: b"]


def test_classes_the_model_cannot_tell_apart_are_named(tiny_model: ClipModel) -> None:
    names = ["red star", "blue heart", "red star"]
    classes = class_embeddings(tiny_model, names, templates("photo"))
    assert alike(classes, names) == [("red star", "red star")]


def test_text_embeddings_that_are_not_finite_are_an_error(tiny_model: ClipModel) -> None:
    network = deepcopy(tiny_model.network)
    torch.nn.init.constant_(network.text_projection, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="its embedding of a class name is zero or not finite"):
        class_embeddings(replace(tiny_model, network=network), ["red star"], templates("photo"))


def test_the_images_of_a_shard_are_found_by_their_captions(tmp_path: Path, tiny_model: ClipModel) -> None:
    store = LocalStore(tmp_path / "store")
    colours, shapes = ("red", "blue", "yellow", "green"), ("star", "heart", "circle")
    entries = [fitting(Scene(c, s, "beach", "single"), seed=i) for i, c in enumerate(colours) for s in shapes]
    write_shard(store, [*entries, Entry(b"broken", b"text"), Entry(None, b"text")])
    found = shard_recall(CRAWL, 3, tiny_model, store, 1)
    assert (found.pairs, found.images) == (12, 12)
    assert found.image_of_text[1] > 0.7
    assert found.image_of_text[1] <= found.image_of_text[5] <= found.image_of_text[10]


def test_a_share_to_keep_gives_a_threshold_for_each_route() -> None:
    similarities = {"en": {str(n): n / 100 for n in range(100)}, "other": {"a": 0.5}, "none": {}}
    english, other = propose(similarities, 0.3)
    assert (english.route, english.threshold, english.kept) == ("en", 0.7, 0.3)
    assert (other.threshold, other.kept) == (0.5, 1.0)
    with pytest.raises(InputError, match="cannot keep a share of"):
        propose(similarities, 0)


def test_labels_give_the_threshold_with_the_best_f1() -> None:
    similarities = {"en": {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.6, "f": 0.1}, "other": {"g": 0.3}}
    labels = {"a": True, "b": True, "c": False, "d": True, "e": False, "f": False, "g": True}
    [found] = propose_from_labels(similarities, labels)
    by_hand = {}
    for threshold in set(similarities["en"].values()):
        kept = [key for key, value in similarities["en"].items() if value >= threshold]
        right = sum(labels[key] for key in kept)
        by_hand[threshold] = 2 * right / (len(kept) + 3)
    assert by_hand[found.threshold] == max(by_hand.values())
    assert (found.threshold, found.precision, found.recall) == (0.8, 1.0, 2 / 3)
    with pytest.raises(InputError, match="both matching and mismatching"):
        propose_from_labels(similarities, {"a": True})


def test_scores_of_several_models_give_no_threshold(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write_shard(store, [fitting(Scene("red", "star", "beach", "two"))], 3)
    write_shard(store, [fitting(Scene("blue", "heart", "bricks", "single"))], 4)
    score(store, batch=3)
    other = score(store, batch=4)
    assert len(read_similarities(CRAWL, [3, 4], store).by_route["en"]) == 2
    name = f"{scored_stem(CRAWL, 4)}_stats.json"
    function = other.details["function"]
    reduced = {"function": function | {"precision": "fp16"}}
    store.write_stats(name, replace(other, details=other.details | reduced))
    assert len(read_similarities(CRAWL, [3, 4], store).by_route["en"]) == 2
    for change, named in (
        ({"model": "other-model"}, "other-model, weights"),
        ({"function": function | {"activation": "QuickGELU()"}}, "weights [0-9a-f]{12}, QuickGELU, 64 px"),
        ({"other_model": "second", "other_weights_sha256": "ab" * 32}, "second, weights abababababab"),
    ):
        store.write_stats(name, replace(other, details=other.details | change))
        with pytest.raises(InputError, match=f"several models .*{named}"):
            read_similarities(CRAWL, [3, 4], store)


def test_weights_of_a_second_model_that_earlier_stats_do_not_name_make_no_other_model(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    star, heart = Scene("red", "star", "beach", "two"), Scene("blue", "heart", "bricks", "single")
    for batch, scene in ((3, star), (4, heart)):
        write_shard(store, [fitting(scene)], batch)
        score(store, batch=batch)
    full = {"other_model": "second", "other_weights_sha256": "ab" * 32}
    _change_details(store, 3, full)
    _change_details(store, 4, {"other_model": "second"})
    found = read_similarities(CRAWL, [3, 4], store)
    assert found.model.endswith(", and second, weights abababababab")
    assert find_scored(CRAWL, store).coverage.other_models == ("second, weights abababababab",)
    _change_details(store, 4, {"other_model": "third"})
    with pytest.raises(InputError, match=r"several models .*third"):
        read_similarities(CRAWL, [3, 4], store)


def _change_details(store: LocalStore, batch: int, change: dict[str, str]) -> None:
    name = f"{scored_stem(CRAWL, batch)}_stats.json"
    stats = store.read_stats(name)
    store.write_stats(name, replace(stats, details=stats.details | change))


def test_commands_on_a_scored_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    store = LocalStore(tmp_path / "store")
    star, heart = Scene("red", "star", "beach", "two"), Scene("blue", "heart", "bricks", "single")
    wrong = Entry(jpeg(star), fitting(heart).text)
    shard = write_shard(store, [fitting(star), wrong, fitting(heart), fitting(star, "de", 3)])
    score(store)
    read = read_similarities(CRAWL, [3], store)
    assert re.match("laion-etl-tiny/scenes, weights [0-9a-f]{12}, GELU", read.model)
    similarities = read.by_route
    assert (len(similarities["en"]), len(similarities["other"])) == (3, 1)
    set_environment(monkeypatch, tmp_path / "store")
    labels = tmp_path / "labels.csv"
    keys = sorted(similarities["en"])
    labels.write_text("key,label\n" + "".join(f"{key},{int(key != keys[1])}\n" for key in keys))
    assert read_labels(labels, read)[keys[1]] is False
    shown = RUNNER.invoke(app, ["model", "calibrate", "--crawl", CRAWL, "--labels", str(labels)])
    assert shown.exit_code == 0, shown.output
    assert "en: precision 1.000, recall 1.000" in shown.output
    assert "export LAION_ETL_CLIP_THRESHOLD_EN=" in shown.output
    assert f"scores of {read.model}" in " ".join(shown.output.split())
    shown = RUNNER.invoke(app, ["model", "calibrate", "--crawl", CRAWL, "--keep", "0.34"])
    assert "export LAION_ETL_CLIP_THRESHOLD_OTHER=" in shown.output
    shown = RUNNER.invoke(app, ["model", "eval", "retrieval", "--crawl", CRAWL, "--shard", "3"])
    assert f"{shard.kept} pairs of 3 images" in shown.output, "two samples have the same image"
    shown = RUNNER.invoke(app, ["model", "eval", "zero-shot", str(folder), "--templates", "simple"])
    assert "24 images in 3 classes, 1 unreadable" in shown.output, shown.output
    assert "top-1" in shown.output
    assert f"{NAMES[2].replace(' ', '_')}: {NAMES[2]}" in shown.output, "which folder is which class"
    shown = RUNNER.invoke(app, ["model", "check", "--json"])
    found = json.loads(shown.stdout)
    assert (found["model"], found["precision"], found["device"]) == ("laion-etl-tiny/scenes", "fp32", "cpu")
    assert found["activation"]
    assert len(found["weights_sha256"]) == 64


def test_labels_of_unknown_samples_are_refused(tmp_path: Path) -> None:
    """Those without a similarity, and of batches that were not named, have nothing to say."""
    samples = Similarities("", {"en": {"00000000300001": 0.5}, "other": {}}, frozenset({"00000000300002"}))
    file = tmp_path / "labels.csv"
    file.write_text("key,label\n00000000300001,1\n00000000300002,0\n")
    assert read_labels(file, samples) == {"00000000300001": True}
    file.write_text("key,label\n00000000300001,1\n00000000400001,0\n")
    with pytest.raises(InputError, match="line 3: there is no scored sample '00000000400001'"):
        read_labels(file, samples)
    named = replace(samples, batches=frozenset({3}))
    assert read_labels(file, named) == {"00000000300001": True}
    for key in ("00000000300009", "4"):
        file.write_text(f"key,label\n{key},0\n")
        with pytest.raises(InputError, match=f"line 2: there is no scored sample '{key}'"):
            read_labels(file, named)


def test_labels_without_the_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("name,value\na,1\n")
    with pytest.raises(InputError, match="columns key and label"):
        read_labels(tmp_path / "labels.csv", Similarities("", {}))
    (tmp_path / "labels.csv").write_text("key,label\na,yes\n")
    with pytest.raises(InputError, match="line 2: label is 'yes', which is not 1 or 0"):
        read_labels(tmp_path / "labels.csv", Similarities("", {}))
