"""The kept samples go through the training code and the loaders that people use."""

import io
import random
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.errors import InputError
from laion_etl.evaluate.train_check import check_training
from laion_etl.minicrawl.scenes import random_scene
from laion_etl.score.stage import score_shards
from laion_etl.storage import LocalStore
from tests.score.conftest import CRAWL, TINY_SETTINGS, fitting, write_shard


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store, rng = LocalStore(tmp_path_factory.mktemp("scored")), random.Random(1)
    for batch in range(2):
        write_shard(store, [fitting(random_scene(rng), seed=seed) for seed in range(24)], batch)
    score_shards(CRAWL, [0, 1], TINY_SETTINGS, store)
    return store


def test_open_clip_trains_on_the_kept_samples(scored: LocalStore) -> None:
    found = check_training(CRAWL, scored, model="laion-etl-tiny", batch_size=8)
    assert found.samples >= 40
    assert len(found.losses) == found.samples // 8
    assert all(0 < loss < 20 for loss in found.losses)


def test_the_command_says_how_it_went(scored: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAION_ETL_STORE", scored.uri(""))
    shown = CliRunner().invoke(
        app, ["eval", "train-check", "--crawl", CRAWL, "--samples", "16", "--batch-size", "8"]
    )
    assert shown.exit_code == 0, shown.output
    assert "open_clip trained laion-etl-tiny for 2 steps of 8 samples: loss" in shown.output


def test_too_few_samples_are_an_error(scored: LocalStore) -> None:
    with pytest.raises(InputError, match="too few for a batch of 500"):
        check_training(CRAWL, scored, model="laion-etl-tiny", batch_size=500)
    with pytest.raises(InputError, match="has 0 kept samples"):
        check_training("absent", scored, model="laion-etl-tiny")


def test_webdataset_reads_the_shards(scored: LocalStore) -> None:
    """The example of docs/formats.md."""
    import webdataset

    tars = [str(Path(scored.uri(f"scored/{CRAWL}/{batch:09d}.tar"))) for batch in range(2)]
    dataset = webdataset.WebDataset(tars, shardshuffle=False).to_tuple("jpg", "txt", "json")
    found = list(dataset)
    kept = sum(scored.read_stats(f"scored/{CRAWL}/{batch:09d}_stats.json").kept for batch in range(2))
    assert len(found) == kept > 40
    picture, text, notes = found[0]
    assert Image.open(io.BytesIO(picture)).size[0] > 0
    assert text.decode()
    assert b'"similarity"' in notes


def test_hugging_face_datasets_streams_the_shards(scored: LocalStore, tmp_path: Path) -> None:
    """The example of docs/formats.md."""
    import datasets

    tars = str(Path(scored.uri(f"scored/{CRAWL}/*.tar")))
    found = datasets.load_dataset(
        "webdataset", data_files=tars, split="train", streaming=True, cache_dir=str(tmp_path)
    )
    kept = sum(scored.read_stats(f"scored/{CRAWL}/{batch:09d}_stats.json").kept for batch in range(2))
    samples = list(found)
    assert len(samples) == kept
    assert isinstance(samples[0]["jpg"], Image.Image)
    assert samples[0]["json"]["similarity"] > 0
