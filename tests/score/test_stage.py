"""The score stage on real shards: what is kept, why the rest is not, and the same bytes every time."""

import io
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from laion_etl.blocklists.removal_requests import Matcher, Request
from laion_etl.core.errors import IncompleteError
from laion_etl.core.ids import batch_name
from laion_etl.core.stage_stats import StageStats
from laion_etl.dataset.missing_batches import Fault, MissingBatch
from laion_etl.dataset.rewrite_shards import rewrite_scored, rewrite_shard
from laion_etl.io.storage import Store
from laion_etl.io.tarshard import read_members
from laion_etl.minicrawl.scenes import LANGUAGES, Scene, caption, draw
from laion_etl.score.encode import SPAN
from laion_etl.score.model import ClipModel
from laion_etl.score.stage import score_shards
from laion_etl.settings import Settings
from tests.score.conftest import (
    CRAWL,
    TINY,
    TINY_SETTINGS,
    TOOLS,
    Entry,
    fitting,
    jpeg,
    notes_of,
    read_parquet,
    score,
    scored_files,
    write_shard,
)

STAR = Scene("red", "star", "beach", "two")
HEART = Scene("blue", "heart", "bricks", "single")
MOON = Scene("yellow", "crescent", "night", "row")
HAZARD = Scene("pink", "circle", "wood", "single", hazard=True)
STEM = f"scored/{CRAWL}/{batch_name(3)}"


def mismatch() -> Entry:
    return Entry(jpeg(STAR), caption(HEART, "en", random.Random(1)).encode())


def members_of(store: Store) -> dict[str, bytes]:
    with store.open(f"{STEM}.tar") as file:
        return dict(read_members(file))


def embeddings(store: Store) -> tuple[np.ndarray, np.ndarray]:
    images, texts = (np.load(io.BytesIO(store.read(f"{STEM}_{kind}_emb.npy"))) for kind in ("img", "text"))
    return images, texts


def test_matching_pairs_are_kept_and_mismatching_dropped_and_the_funnel_adds_up(store: Store) -> None:
    shard = write_shard(store, [fitting(STAR), mismatch(), fitting(HEART), fitting(MOON)])
    stats = score(store)
    assert (stats.input, stats.kept, stats.dropped) == (shard.kept, 3, {"low_similarity": 1})
    rows = read_parquet(store)
    assert [row["reason"] for row in rows] == [None, "low_similarity", None, None]
    assert all(row["similarity"] is not None for row in rows)
    assert rows[1]["similarity"] < rows[1]["threshold"]  # type: ignore[operator]


def test_the_tar_has_only_kept_samples_with_images_unchanged_and_scores_added(store: Store) -> None:
    entries = [fitting(STAR), mismatch(), fitting(HEART)]
    write_shard(store, entries)
    score(store)
    members = members_of(store)
    keys = [row["key"] for row in read_parquet(store) if row["reason"] is None]
    assert list(members) == [f"{key}.{end}" for key in keys for end in ("jpg", "txt", "json")]
    assert members[f"{keys[0]}.jpg"] == entries[0].image
    assert members[f"{keys[1]}.txt"] == entries[2].text
    notes = notes_of(members[f"{keys[0]}.json"])
    assert notes["from"] == "test"
    assert {"similarity", "threshold", "nsfw_tag", "punsafe", "aesthetic", "subset"} <= set(notes)
    assert list(notes) == sorted(notes)


def test_embeddings_are_half_precision_unit_vectors_in_the_order_of_the_kept_keys(store: Store) -> None:
    write_shard(store, [fitting(STAR), mismatch(), fitting(HEART)])
    score(store)
    images, texts = embeddings(store)
    assert (images.dtype, texts.dtype, images.shape) == (np.float16, np.float16, texts.shape)
    assert np.allclose(np.linalg.norm(images.astype(np.float32), axis=1), 1, atol=2e-3)
    kept = [row["similarity"] for row in read_parquet(store) if row["reason"] is None]
    cosines = (images.astype(np.float32) * texts.astype(np.float32)).sum(axis=1)
    assert np.allclose(cosines, kept, atol=2e-3)


def test_similarities_are_those_of_a_plain_open_clip_loop(store: Store, tiny_model: ClipModel) -> None:
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    entries = [
        fitting(scene, language, seed) for seed, language in enumerate(LANGUAGES) for scene in (STAR, MOON)
    ]
    write_shard(store, [*entries, mismatch()])
    score(store)
    preprocess = image_transform_v2(PreprocessCfg(**tiny_model.network.visual.preprocess_cfg), is_train=False)
    tokenizer = open_clip.get_tokenizer("laion-etl-tiny")
    expected = []
    for entry in [*entries, mismatch()]:
        assert entry.image is not None
        assert entry.text is not None
        with torch.no_grad():
            image = preprocess(Image.open(io.BytesIO(entry.image)))[None]
            found = tiny_model.network.encode_image(image)
            text = tiny_model.network.encode_text(tokenizer([entry.text.decode()]))
            expected.append(torch.cosine_similarity(found, text).item())
    similarities = [row["similarity"] for row in read_parquet(store)]
    assert np.allclose(similarities, expected, atol=1e-3)


def broken_entries() -> list[Entry]:
    good = fitting(STAR)
    assert good.image is not None
    return [
        good,
        replace(good, image=good.image[: len(good.image) // 2]),
        replace(good, image=b"<html>no image</html>"),
        replace(good, image=None),
        replace(good, text=None),
        replace(good, text=b" \n"),
        replace(good, text=b"\xff\xfe broken"),
        replace(good, notes=b"{"),
        replace(good, ending="png"),  # a JPEG under a wrong name
        replace(good, image=None, text=None, notes=None),
        good,
    ]


def test_broken_members_are_counted_as_unreadable_and_the_rest_is_scored(store: Store) -> None:
    entries = broken_entries()
    write_shard(store, entries)
    stats = score(store)
    assert (stats.input, stats.kept, stats.dropped) == (len(entries), 2, {"unreadable": len(entries) - 2})
    rows = read_parquet(store)
    assert [row["reason"] for row in rows] == [None, *["unreadable"] * 9, None]
    assert all(row["similarity"] is None for row in rows[1:-1])
    assert embeddings(store)[0].shape[0] == 2


def test_an_image_over_the_pixel_cap_is_not_decoded(store: Store) -> None:
    write_shard(store, [fitting(STAR), fitting(STAR, seed=1)])
    stats = score(store, Settings(clip=replace(TINY, max_pixels=1_000)))
    assert stats.dropped == {"unreadable": 2}


def test_a_text_of_ten_thousand_characters_is_scored_quickly(store: Store) -> None:
    good = fitting(STAR)
    assert good.text is not None
    one_word = replace(good, text=b"q" * 10_000)
    write_shard(store, [replace(good, text=good.text + b" and more" * 1_111), one_word, good])
    stats = score(store)
    assert stats.input == 3
    assert read_parquet(store)[1]["reason"] == "low_similarity"


def test_palette_and_transparent_images_are_scored(store: Store) -> None:
    entries = []
    for mode in ("P", "RGBA", "L", "LA"):
        file = io.BytesIO()
        draw(HEART, 120, 120, random.Random(2)).convert(mode).save(file, "PNG")
        entries.append(replace(fitting(HEART), image=file.getvalue(), ending="png"))
    write_shard(store, entries)
    assert "unreadable" not in score(store).dropped


def test_one_sample(store: Store) -> None:
    write_shard(store, [fitting(MOON)])
    assert score(store).kept == 1


def test_a_shard_without_samples_gives_empty_but_readable_files(store: Store) -> None:
    write_shard(store, [], failed=4)
    stats = score(store)
    assert (stats.input, stats.kept, stats.dropped) == (0, 0, {})
    assert members_of(store) == {}
    assert read_parquet(store) == []
    assert embeddings(store)[0].shape == (0, 64)


def test_scoring_twice_does_no_work_and_scoring_anew_gives_the_same_bytes(store: Store) -> None:
    write_shard(store, [fitting(STAR), mismatch(), fitting(HEART), *broken_entries()])
    first = score(store)
    before = scored_files(store)
    store.write(f"{STEM}.tar", b"left in place unless the shard is scored again")
    assert score(store) == first
    store.delete(f"{STEM}_stats.json")
    assert score(store) == first
    assert scored_files(store) == before
    assert {output.name: output.sha256 for output in first.outputs}.items() <= before.items()


@cache
def more_than_a_span() -> list[Entry]:
    """Samples of two spans, with unreadable ones and other languages in between."""
    scenes = (STAR, HEART, MOON, HAZARD)
    many = [fitting(scenes[i % 4], LANGUAGES[i % len(LANGUAGES)], i) for i in range(SPAN + 12)]
    return [*many[:30], *broken_entries(), *many[30:], mismatch()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_size_and_threads_change_no_byte(store: Store, precision: str) -> None:
    """docs/architecture.md promises it for CPUs."""
    write_shard(store, more_than_a_span())
    settings = replace(TINY, precision=precision, batch_size=256, threads=1)
    first = score(store, Settings(clip=settings))
    expected = scored_files(store)
    for changed in ({"batch_size": 1}, {"batch_size": 100, "threads": 3, "preparers": 2}):
        store.delete(f"{STEM}_stats.json")
        assert score(store, Settings(clip=replace(settings, **changed))) == first
        assert scored_files(store) == expected


def test_precision_moves_similarities_by_the_stated_tolerance_at_most(store: Store) -> None:
    """docs/architecture.md states it; bfloat16 is what GPUs compute in."""
    write_shard(store, [fitting(STAR), mismatch(), fitting(HEART), *broken_entries(), fitting(MOON, "ru")])
    exact = score(store)
    expected = similarities(store)
    found = score(store, Settings(clip=replace(TINY, precision="bf16")))
    assert (found.kept, found.dropped) == (exact.kept, exact.dropped)
    assert np.allclose(similarities(store), expected, atol=0.01, rtol=0)
    assert similarities(store) != expected


def similarities(store: Store) -> list[float]:
    """The column for all samples; 0 for unreadable ones."""
    return [float(str(row["similarity"] or 0)) for row in read_parquet(store)]


def test_other_settings_or_another_shard_are_scored_anew(store: Store) -> None:
    write_shard(store, [fitting(STAR), fitting(HEART)])
    assert score(store).kept == 2
    assert score(store, Settings(clip=replace(TINY, threshold_en=0.999))).kept == 0
    write_shard(store, [fitting(MOON)])
    assert score(store).kept == 1


def test_scores_stay_where_a_removal_rewrote_the_shard_after_its_images_were_deleted(store: Store) -> None:
    write_shard(store, [fitting(STAR), fitting(HEART)])
    score(store)
    shard = f"shards/{CRAWL}/{batch_name(3)}"
    store.delete(f"{shard}.tar")
    first = read_parquet(store)[0]["pair_id"]
    assert isinstance(first, bytes)
    matcher = Matcher([Request({}, pair_ids=frozenset({first.hex()}))], pdq_distance=31)
    rewrite_scored(STEM, store, matcher)
    rewrite_shard(shard, store, matcher)
    before = scored_files(store)
    assert score(store).kept == 1
    assert scored_files(store) == before
    missing: list[MissingBatch] = []
    other = Settings(clip=replace(TINY, threshold_en=0.999))
    score_shards(CRAWL, [3], other, store, tools=TOOLS, on_missing=missing.append)
    assert [one.cause for one in missing] == [Fault.IMAGES_DELETED]
    assert scored_files(store) == before


def test_what_a_removal_has_not_taken_out_of_the_shard_yet_is_in_no_scored_one(store: Store) -> None:
    write_shard(store, [fitting(STAR), fitting(HEART), mismatch()])
    rows = pq.read_table(io.BytesIO(store.read(f"shards/{CRAWL}/{batch_name(3)}.parquet"))).to_pylist()
    named = [row["pair_id"].hex() for row in rows[:1]]
    request = Request({"pairs": tuple(named)})
    store.write(request.name, request.to_json())
    stats = score(store)
    assert (stats.input, stats.kept, stats.dropped) == (2, 1, {"low_similarity": 1})
    assert [row["key"] for row in read_parquet(store)] == [rows[1]["key"], rows[2]["key"]]
    assert len(embeddings(store)[0]) == 1
    before = scored_files(store)
    assert score(store) == stats
    assert scored_files(store) == before


def test_english_and_other_languages_have_their_own_threshold(store: Store) -> None:
    write_shard(store, [fitting(STAR, language) for language in ("en", "de")] + [fitting(STAR)])
    kept = score(store, Settings(clip=replace(TINY, threshold_en=0.2, threshold_other=1.0))).kept
    rows = read_parquet(store)
    assert kept == 2
    assert [(row["reason"], row["subset"]) for row in rows] == [
        (None, "laion-en"),
        ("low_similarity", "laion-multi"),
        (None, "laion-en"),
    ]


def test_a_pair_without_language_goes_to_nolang_under_the_other_threshold(store: Store) -> None:
    write_shard(store, [replace(fitting(STAR), language="")])
    score(store)
    (row,) = read_parquet(store)
    assert row["subset"] == "laion-nolang"
    assert row["threshold"] == pytest.approx(score(store).details["threshold_other"])


def test_hazard_images_are_tagged_and_with_words_for_children_dropped(store: Store) -> None:
    hazard = fitting(HAZARD)
    assert hazard.text is not None
    suspect = replace(hazard, text=hazard.text + b" for children")
    harmless = fitting(STAR)
    assert harmless.text is not None
    write_shard(store, [hazard, suspect, harmless, replace(harmless, text=harmless.text + b" for children")])
    stats = score(store)
    rows = read_parquet(store)
    assert [row["nsfw_tag"] for row in rows] == ["NSFW", "NSFW", "UNLIKELY", "UNLIKELY"]
    assert rows[0]["punsafe"] > 0.5 > rows[2]["punsafe"]  # type: ignore[operator]
    assert rows[1]["reason"] == "suspected_underage"
    assert stats.dropped["suspected_underage"] == 1
    assert stats.details["kept_nsfw_tags"]["NSFW"] == 1
    assert not any(str(rows[1]["key"]) in name for name in members_of(store))


def test_several_shards_are_scored_with_one_call_and_reported_one_by_one(store: Store) -> None:
    write_shard(store, [fitting(STAR)], batch=1)
    write_shard(store, [mismatch()], batch=2)
    seen: list[StageStats] = []
    done = score_shards(CRAWL, [2, 1], TINY_SETTINGS, store, seen.append, TOOLS)
    assert [(stats.unit, stats.kept) for stats in done] == [("000000002", 0), ("000000001", 1)]
    assert seen == done


def test_no_shards_need_no_model(store: Store) -> None:
    assert score_shards(CRAWL, [], Settings(clip=replace(TINY, model="no such model")), store) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:2_000],
        lambda data: data[:600] + b"\1" + data[601:],
        lambda data: data[:0],
        lambda data: data + b"x",
    ],
    ids=["cut off", "a changed byte", "empty", "longer"],
)
@pytest.mark.parametrize("ending", [".tar", ".parquet"])
def test_a_damaged_shard_is_named_with_its_file_and_leaves_nothing(
    store: Store, ending: str, damage: object
) -> None:
    write_shard(store, [fitting(STAR)])
    name = f"shards/{CRAWL}/{batch_name(3)}{ending}"
    store.write(name, damage(store.read(name)))  # type: ignore[operator]
    with pytest.raises(IncompleteError, match=f"damaged, .*{batch_name(3)}{ending}"):
        score(store)
    assert store.list("scored") == []


def test_a_missing_tar_or_shard_is_named_with_its_file(store: Store) -> None:
    with pytest.raises(IncompleteError, match=f"not_downloaded, .*{batch_name(3)}_stats.json"):
        score(store)
    write_shard(store, [fitting(STAR)])
    store.delete(f"shards/{CRAWL}/{batch_name(3)}.tar")
    with pytest.raises(IncompleteError, match=f"file_missing, .*{batch_name(3)}.tar"):
        score(store)
    assert store.list("scored") == []
