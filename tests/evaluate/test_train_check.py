"""The kept samples go through the training code and the loaders that people use."""

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.evaluate.train_check import check_training
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.scenes import random_scene
from tests.score.conftest import CRAWL, Entry, fitting, score, write_shard

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store, rng = LocalStore(tmp_path_factory.mktemp("scored")), random.Random(1)
    for batch in range(2):
        entries = [_encoded(fitting(random_scene(rng), seed=seed), seed) for seed in range(24)]
        write_shard(store, entries, batch)
        score(store, batch=batch)
    return store


def _encoded(entry: Entry, number: int) -> Entry:
    """Return every third sample in another encoding, as a crawl has them: the last ones of a shard too."""
    encoding = {1: "png", 2: "webp"}.get(number % 6 - 3)
    if encoding is None or entry.image is None:
        return entry
    out = io.BytesIO()
    Image.open(io.BytesIO(entry.image)).save(out, encoding.upper(), lossless=True)
    return replace(entry, image=out.getvalue(), ending=encoding)


def test_open_clip_trains_on_the_kept_samples_and_the_command_says_how_it_went(
    scored: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples of both shards are needed for so many steps."""
    monkeypatch.setenv("LAION_ETL_STORE", scored.uri(""))
    shown = CliRunner().invoke(
        app, ["dataset", "train-check", "--crawl", CRAWL, "--samples", "40", "--batch-size", "8"]
    )
    assert shown.exit_code == 0, shown.output
    said = re.search(
        r"open_clip trained laion-etl-tiny for 5 steps of 8 samples: loss ([\d.]+) to ([\d.]+)", shown.output
    )
    assert said is not None, shown.output
    assert all(0 < float(loss) < 20 for loss in said.groups())


def test_too_few_samples_are_an_error(scored: LocalStore) -> None:
    with pytest.raises(InputError, match="too few for a batch of 500"):
        check_training(CRAWL, scored, model="laion-etl-tiny", batch_size=500)
    with pytest.raises(InputError, match="cannot find a scored batch of absent"):
        check_training("absent", scored, model="laion-etl-tiny")


def test_webdataset_reads_the_shards(scored: LocalStore) -> None:
    """The example of docs/formats.md."""
    import webdataset

    tars = [str(Path(scored.uri(f"scored/{CRAWL}/{batch:09d}.tar"))) for batch in range(2)]
    dataset = webdataset.WebDataset(tars, shardshuffle=False).to_tuple("jpg", "txt", "json")
    found = list(dataset)
    kept = sum(scored.read_stats(f"scored/{CRAWL}/{batch:09d}_stats.json").kept for batch in range(2))
    assert len(found) == kept > 40
    _, text, notes = found[0]
    encodings = {Image.open(io.BytesIO(one)).format for one, _, _ in found}
    assert encodings == {"JPEG", "PNG", "WEBP"}
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
    assert all(isinstance(sample["jpg"], Image.Image) for sample in samples)
    assert samples[0]["json"]["similarity"] > 0
