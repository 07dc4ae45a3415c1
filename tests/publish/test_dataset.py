import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from laion_etl.core.errors import InputError, SettingsError
from laion_etl.core.schemas import DATASET_SCHEMA, SCORED_SCHEMA, pair_id
from laion_etl.dataset import new_files
from laion_etl.io.storage import LocalStore, Store
from laion_etl.publish.stage import publish_dataset, rebuild_report, render_report
from laion_etl.settings import Settings
from tests.publish.world import CRAWL, Row, World, build_world, changed, write_scored, write_world

FOLDER = f"dataset/laion/{CRAWL}"
LANGUAGE_SUBSETS = ("laion-en", "laion-multi", "laion-nolang")


@pytest.fixture
def plain() -> Settings:
    return Settings()


def rows_of(store: Store, subset: str, folder: str = FOLDER) -> list[Row]:
    names = [name for name in store.list(f"{folder}/{subset}") if name.endswith(".parquet")]
    return [row for name in names for row in pq.read_table(io.BytesIO(store.read(name))).to_pylist()]


def files_of(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.list("dataset")}


def without_figures(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("report/png/")]


def published(world: World, store: Store, settings: Settings) -> World:
    write_world(world, store)
    publish_dataset(CRAWL, settings, store)
    return world


def test_files_have_the_columns_of_laion_5b(store: Store, plain: Settings) -> None:
    published(build_world(), store, plain)
    names = [name for name in store.list(FOLDER) if name.endswith("-00000.parquet")]
    assert len(names) == 5
    for name in names:
        assert pq.read_schema(io.BytesIO(store.read(name))).equals(DATASET_SCHEMA)
    assert DATASET_SCHEMA.names[:9] == [
        "SAMPLE_ID", "URL", "TEXT", "WIDTH", "HEIGHT", "LICENSE", "LANGUAGE", "NSFW", "similarity",
    ]  # fmt: skip


def test_columns_mean_what_the_contract_says(store: Store, plain: Settings) -> None:
    world = published(build_world(), store, plain)
    found = {row["key"]: row for subset in LANGUAGE_SUBSETS for row in rows_of(store, subset)}
    for source in world.kept:
        row = found[source["key"]]
        digest = pair_id(source["url"], source["caption"])
        assert row["SAMPLE_ID"] == int(source["key"])
        assert row["hash"] == int.from_bytes(digest[:8], "big", signed=True)
        assert (row["WIDTH"], row["HEIGHT"]) == (source["original_width"], source["original_height"])
        assert (row["URL"], row["TEXT"]) == (source["url"], source["caption"])
        assert (row["NSFW"], row["crawl"]) == (source["nsfw_tag"], CRAWL)
        assert row["LANGUAGE"] == (source["language"] or "nolang")


def test_language_subsets_share_no_row_and_hold_every_kept_one(store: Store, plain: Settings) -> None:
    world = published(build_world(), store, plain)
    keys = [[row["key"] for row in rows_of(store, subset)] for subset in LANGUAGE_SUBSETS]
    assert all(keys)
    everything = [key for subset in keys for key in subset]
    assert sorted(everything) == [row["key"] for row in world.kept]
    assert len(set(everything)) == len(everything)
    assert {row["LANGUAGE"] for row in rows_of(store, "laion-en")} == {"en"}
    assert {row["LANGUAGE"] for row in rows_of(store, "laion-nolang")} == {"nolang"}


def test_rejected_rows_are_in_no_file(store: Store, plain: Settings) -> None:
    world = published(build_world(), store, plain)
    rejected = {row["key"] for row in world.rows if row["reason"] is not None}
    subsets = (*LANGUAGE_SUBSETS, "laion-high-resolution", "laion-aesthetic")
    everything = {row["key"] for subset in subsets for row in rows_of(store, subset)}
    assert len(rejected) == 13
    assert not rejected & everything


def test_high_resolution_needs_both_original_sides(store: Store, plain: Settings) -> None:
    world = published(build_world(), store, plain)
    expected = [
        row["key"] for row in world.kept if row["original_width"] >= 1024 and row["original_height"] >= 1024
    ]
    sizes = {(row["WIDTH"], row["HEIGHT"]) for row in rows_of(store, "laion-high-resolution")}
    assert [row["key"] for row in rows_of(store, "laion-high-resolution")] == expected
    assert sizes == {(1600, 1200), (1024, 1024)}


def test_the_aesthetic_subset_needs_a_score(store: Store, plain: Settings) -> None:
    world = published(build_world(), store, changed(plain, aesthetic_min=4.0))
    expected = [row["key"] for row in world.kept if row["aesthetic"] is not None and row["aesthetic"] >= 4.0]
    assert 0 < len(expected) < len(world.kept)
    assert [row["key"] for row in rows_of(store, "laion-aesthetic")] == expected


def test_files_are_cut_at_the_wanted_number_of_rows(
    store: Store, plain: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_files, "ROWS_PER_GROUP", 8)
    world = published(build_world(), store, changed(plain, rows_per_file=20))
    names = store.list(f"{FOLDER}/laion-en")
    counts = [pq.read_metadata(io.BytesIO(store.read(name))).num_rows for name in names]
    english = [row["key"] for row in world.kept if row["language"] == "en"]
    assert [name.rsplit("/", 1)[1] for name in names] == [f"part-{i:05d}.parquet" for i in range(len(names))]
    assert counts[:-1] == [20] * (len(counts) - 1)
    assert sum(counts) == len(english) > 40
    assert [row["key"] for row in rows_of(store, "laion-en")] == english


def test_the_manifest_lists_every_file_with_its_hash(any_store: Store, plain: Settings) -> None:
    world = published(build_world(batches=2, samples=20), any_store, plain)
    manifest = json.loads(any_store.read(f"{FOLDER}/manifest.json"))
    listed = {entry["name"]: entry for entry in manifest["files"]}
    present = {name.removeprefix(f"{FOLDER}/") for name in any_store.list(FOLDER)}
    assert set(listed) == present - {"manifest.json", "_stats.json"}
    for name, entry in listed.items():
        data = any_store.read(f"{FOLDER}/{name}")
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        if name.endswith(".parquet"):
            assert entry["rows"] == pq.read_metadata(io.BytesIO(data)).num_rows
    counts = {subset["name"]: subset["rows"] for subset in manifest["subsets"]}
    assert manifest["rows"] == len(world.kept) == sum(counts[name] for name in LANGUAGE_SUBSETS)
    assert (manifest["crawls"], manifest["models"]) == (
        [CRAWL],
        ["test-model, weights abababababab, fp32 on cpu"],
    )
    assert manifest["settings"]["clip"]["threshold_en"] == 0.28


def test_the_manifest_has_no_folders_of_the_machine(store: Store, plain: Settings) -> None:
    settings = replace(plain, safety=replace(plain.safety, aesthetic_head="/secret/place/head.pth"))
    published(build_world(batches=1), store, settings)
    text = store.read(f"{FOLDER}/manifest.json").decode()
    assert "head.pth" in text
    assert "/secret" not in text
    assert store.uri() not in text


def test_two_runs_give_the_same_bytes(tmp_path: Path, plain: Settings) -> None:
    stores = [LocalStore(tmp_path / name) for name in ("first", "second")]
    for store in stores:
        published(build_world(), store, plain)
    first, second = map(files_of, stores)
    assert len(first) == 31
    assert first == second


def test_a_finished_version_is_returned_without_work(store: Store, plain: Settings) -> None:
    published(build_world(), store, plain)
    before = {path: path.stat().st_mtime_ns for path in Path(store.uri("dataset")).rglob("*")}
    stats = publish_dataset(CRAWL, plain, store)
    assert stats.kept == 107
    assert before == {path: path.stat().st_mtime_ns for path in Path(store.uri("dataset")).rglob("*")}


def test_the_stats_name_every_file_and_count_each_subset(store: Store, plain: Settings) -> None:
    world = published(build_world(), store, plain)
    stats = store.read_stats(f"{FOLDER}/_stats.json")
    assert (stats.input, stats.kept, stats.dropped) == (len(world.kept), len(world.kept), {})
    assert {output.name for output in stats.outputs} == set(store.list(FOLDER)) - {f"{FOLDER}/_stats.json"}
    for subset, count in stats.details["subsets"].items():
        assert count == len(rows_of(store, subset))


def test_files_of_an_earlier_attempt_are_deleted(store: Store, plain: Settings) -> None:
    store.write(f"{FOLDER}/laion-en/part-00099.parquet", b"left of a killed attempt")
    published(build_world(), store, plain)
    assert without_figures(name.removeprefix(f"{FOLDER}/") for name in store.list(FOLDER)) == sorted(
        [
            *(f"{subset}/part-00000.parquet" for subset in LANGUAGE_SUBSETS),
            "laion-high-resolution/part-00000.parquet",
            "laion-aesthetic/part-00000.parquet",
            *("LICENSE.md", "README.md", "_image_hashes.pq", "_stats.json", "croissant.json"),
            *("dataset-card.md", "dataset-croissant.json", "manifest.json", "report/index.html"),
        ]
    )


def test_a_failed_attempt_leaves_the_version_before_as_it_was(store: Store, plain: Settings) -> None:
    world = published(build_world(), store, plain)
    before = files_of(store)
    broken = f"scored/{CRAWL}/000000002.parquet"
    store.write(broken, store.read(broken)[:-100])
    with pytest.raises(InputError, match=r"cannot read .*000000002\.parquet: .* score the batch again"):
        publish_dataset(CRAWL, changed(plain, rows_per_file=50), store)
    assert before.items() <= files_of(store).items()
    write_scored(2, world.batches[2], store)
    assert publish_dataset(CRAWL, changed(plain, rows_per_file=50), store).kept == len(world.kept)
    assert {name for name, _ in before.items() - files_of(store).items()} == {
        "dataset/laion/README.md",
        "dataset/laion/croissant.json",
        "dataset/laion/versions.json",
    }


def test_a_scored_file_that_is_not_what_its_stats_say_is_refused(store: Store, plain: Settings) -> None:
    world = build_world()
    write_world(world, store)
    stats = store.read_stats(f"scored/{CRAWL}/000000001_stats.json")
    write_scored(1, world.batches[1][:-2], store)
    store.write_stats(f"scored/{CRAWL}/000000001_stats.json", stats)
    with pytest.raises(InputError, match="keeps 34 rows, its stats say 35; delete"):
        publish_dataset(CRAWL, plain, store)


def test_keys_of_another_batch_or_out_of_order_are_refused(store: Store, plain: Settings) -> None:
    world = build_world()
    write_world(world, store)
    right = store.read(f"scored/{CRAWL}/000000001.parquet")
    for wrong in (world.batches[0], world.batches[1][::-1], [world.batches[1][0]] * 2):
        with store.create(f"scored/{CRAWL}/000000001.parquet") as file:
            pq.write_table(pa.Table.from_pylist(wrong, schema=SCORED_SCHEMA), file)
        with pytest.raises(InputError, match="keys are out of order or of other batches"):
            publish_dataset(CRAWL, plain, store)
    store.write(f"scored/{CRAWL}/000000001.parquet", right)
    assert publish_dataset(CRAWL, plain, store).kept == len(world.kept)


def test_only_complete_batches_are_published_and_missing_ones_named(store: Store, plain: Settings) -> None:
    world = build_world()
    write_world(world, store, planned_batches=(0, 1, 7))
    stats = publish_dataset(CRAWL, plain, store)
    kept = [row for number in (0, 1) for row in world.batches[number] if row["reason"] is None]
    manifest = json.loads(store.read(f"{FOLDER}/manifest.json"))
    assert stats.kept == len(kept)
    assert manifest["batches"] == {
        "planned": 3, "published": 2, "numbers": [[0, 1]], "missing": [7], "unplanned": [2]
    }  # fmt: skip
    for name in ("README.md", "report/index.html"):
        text = store.read(f"{FOLDER}/{name}").decode()
        assert "Missing batches: 1 of 3 planned (7)." in text
        assert "scored batches that are no longer in the plan (2)" in text


def test_a_batch_scored_later_makes_a_new_version(store: Store, plain: Settings) -> None:
    world = build_world()
    first = World({0: world.batches[0]})
    write_world(first, store, planned_batches=(0, 1, 2))
    before = publish_dataset(CRAWL, plain, store)
    write_world(world, store)
    after = publish_dataset(CRAWL, plain, store)
    assert (before.kept, after.kept) == (len(first.kept), len(world.kept))
    assert after.details["missing_batches"] == []


def test_batches_scored_by_different_models_are_pointed_out(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    name = f"scored/{CRAWL}/000000001_stats.json"
    stats = store.read_stats(name)
    prompts = {"name": "mine.json", "provenance": "Made\nby <me>.", "validation": "On 300 images."}
    safety = {"prompts": prompts, "nsfw_head": "abc"}
    function = {"activation": "QuickGELU()", "size": [224, 224], "interpolation": "bicubic", "context": 77}
    function |= {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.25] * 3, "tokenizer": "cd" * 32}
    second = {
        "other_model": "second-model",
        "other_weights_sha256": "ef" * 32,
        "other_function": function | {"precision": "bf16", "device": "cuda"},
    }
    store.write_stats(name, replace(stats, details={"model": "other-model", "safety": safety} | second))
    publish_dataset(CRAWL, plain, store)
    for file in ("README.md", "report/index.html"):
        text = store.read(f"{FOLDER}/{file}").decode()
        assert (
            "Scored by different models, so similarities are not comparable: other-model; test-model" in text
        )
    card = store.read(f"{FOLDER}/README.md").decode()
    assert "The threshold 0.28 was chosen for OpenAI's ViT-B/32, not for `other-model`" in card
    described = (
        "second-model, weights efefefefefef, QuickGELU, 224 px bicubic squash, mean 0.5/0.5/0.5, "
        "std 0.25/0.25/0.25, 77 tokens by cdcdcdcdcdcd, bf16 on cuda, for other languages"
    )
    assert f"`{described}`" in card
    assert described in json.loads(store.read(f"{FOLDER}/manifest.json"))["models"]
    assert described in store.read(f"{FOLDER}/croissant.json").decode()
    origin = "Prompts mine.json: Made by &lt;me>. On 300 images. punsafe comes from a trained head (abc)."
    assert f"\n\n{origin}\n" in card


def test_second_models_that_differ_are_pointed_out(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    function = {"activation": "GELU()", "size": 224, "precision": "fp32", "device": "cpu"}
    second = {"other_model": "second-model", "other_weights_sha256": "ef" * 32}
    for batch, activation in ((0, "GELU()"), (1, "QuickGELU()"), (2, "GELU()")):
        name = f"scored/{CRAWL}/{batch:09d}_stats.json"
        stats = store.read_stats(name)
        other = second | {"other_function": function | {"activation": activation}}
        store.write_stats(name, replace(stats, details=stats.details | other))
    publish_dataset(CRAWL, plain, store)
    models = "; ".join(
        (
            "test-model, weights abababababab, fp32 on cpu",
            "second-model, weights efefefefefef, GELU, 224 px, fp32 on cpu, for other languages",
            "second-model, weights efefefefefef, QuickGELU, 224 px, fp32 on cpu, for other languages",
        )
    )
    for file in ("README.md", "report/index.html"):
        text = store.read(f"{FOLDER}/{file}").decode()
        assert f"not comparable: {models}." in text
    assert f"image and text embeddings ({models})" in text


def test_a_second_model_of_some_batches_is_pointed_out(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    name = f"scored/{CRAWL}/000000001_stats.json"
    stats = store.read_stats(name)
    second = {"other_model": "second-model", "other_weights_sha256": "ef" * 32}
    store.write_stats(name, replace(stats, details=stats.details | second))
    publish_dataset(CRAWL, plain, store)
    for file in ("README.md", "report/index.html"):
        text = store.read(f"{FOLDER}/{file}").decode()
        assert "second-model, weights efefefefefef, for other languages." in text
        assert "2 of 3 batches were scored without the model for other languages." in text


def test_the_card_names_the_model_of_a_threshold_by_name_and_weights(store: Store, plain: Settings) -> None:
    write_world(build_world(), store)
    long = {"model": "m" * 90, "weights_sha256": "cd" * 32, "function": {"activation": "QuickGELU()"}}
    for batch, device in ((0, "cpu"), (1, "cuda"), (2, "cpu")):
        name = f"scored/{CRAWL}/{batch:09d}_stats.json"
        stats = store.read_stats(name)
        function = {"activation": "QuickGELU()", "size": 224, "precision": "bf16", "device": device}
        details = stats.details | long | {"function": function}
        store.write_stats(name, replace(stats, details=details))
    publish_dataset(CRAWL, plain, store)
    card = store.read(f"{FOLDER}/README.md").decode()
    assert card.count("The threshold 0.28 was chosen for") == 1
    assert f"not for `{'m' * 90}, weights cdcdcdcdcdcd`:" in card


def test_nothing_scored_says_what_to_do(store: Store, plain: Settings) -> None:
    with pytest.raises(InputError, match=f"run `laion-etl stage score --crawl {CRAWL}` first"):
        publish_dataset(CRAWL, plain, store)
    assert store.list("dataset") == []


def _all_rejected(row: Row) -> Row:
    return {**row, "similarity": 0.1, "reason": "low_similarity"}


def _nothing(row: Row) -> Row | None:
    return None


@pytest.mark.parametrize("change", [_all_rejected, _nothing])
def test_a_crawl_of_which_nothing_is_kept_is_published_empty(
    store: Store, plain: Settings, change: Callable[[Row], Row | None]
) -> None:
    batches = build_world(batches=2).batches
    world = World({n: [new for row in rows if (new := change(row))] for n, rows in batches.items()})
    published(world, store, plain)
    manifest = json.loads(store.read(f"{FOLDER}/manifest.json"))
    assert manifest["rows"] == 0
    assert without_figures(entry["name"] for entry in manifest["files"]) == [
        "LICENSE.md",
        "README.md",
        "_image_hashes.pq",
        "croissant.json",
        "dataset-card.md",
        "dataset-croissant.json",
        "report/index.html",
    ]
    assert b"There are no published pairs." in store.read(f"{FOLDER}/README.md")
    header = yaml.safe_load(store.read(f"{FOLDER}/README.md").split(b"---\n")[1])
    assert [one["data_files"] for one in header["configs"]] == [[]], "or the report's images would be loaded"
    assert store.read_stats(f"{FOLDER}/_stats.json").kept == 0


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_names_that_are_no_folder_are_refused(plain: Settings, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot use LAION_ETL_PUBLISH_NAME="):
        changed(plain, name=name)


def test_a_version_of_another_name_leaves_the_first_unchanged(store: Store, plain: Settings) -> None:
    published(build_world(), store, plain)
    before = files_of(store)
    publish_dataset(CRAWL, plain, store, version="v2")
    after = files_of(store)
    assert len(rows_of(store, "laion-en", "dataset/laion/v2")) == len(rows_of(store, "laion-en"))
    of_the_first = {name: data for name, data in before.items() if name.startswith(f"{FOLDER}/")}
    assert of_the_first.items() <= after.items()


def test_a_rebuilt_report_keeps_the_manifest_true(store: Store, plain: Settings) -> None:
    published(build_world(), store, plain)
    whole = files_of(store)
    assert render_report(CRAWL, plain, store) == whole[f"{FOLDER}/report/index.html"]
    rebuild_report(CRAWL, plain, store)
    assert files_of(store) == whole
    write_scored(0, build_world(seed=8).batches[0], store)
    rebuild_report(CRAWL, plain, store)
    report, manifest = (store.read(f"{FOLDER}/{name}") for name in ("report/index.html", "manifest.json"))
    entries = {entry["name"]: entry for entry in json.loads(manifest)["files"]}
    assert report != whole[f"{FOLDER}/report/index.html"]
    assert entries["report/index.html"]["sha256"] == hashlib.sha256(report).hexdigest()
    outputs = {output.name: output.sha256 for output in store.read_stats(f"{FOLDER}/_stats.json").outputs}
    assert outputs[f"{FOLDER}/manifest.json"] == hashlib.sha256(manifest).hexdigest()


def test_hugging_face_datasets_loads_every_subset_by_the_card(tmp_path: Path, plain: Settings) -> None:
    import datasets

    store, world = LocalStore(tmp_path / "store"), build_world()
    published(world, store, plain)
    folder = str(tmp_path / "store" / FOLDER)
    manifest = json.loads(store.read(f"{FOLDER}/manifest.json"))
    rows = {subset["name"]: subset["rows"] for subset in manifest["subsets"]}
    assert sorted(datasets.get_dataset_config_names(folder)) == sorted(name for name in rows if rows[name])
    for name in filter(rows.get, rows):
        loaded = datasets.load_dataset(folder, name, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == rows[name]
        assert loaded.column_names == DATASET_SCHEMA.names
