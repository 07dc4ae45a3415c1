"""The kept samples go through the training code and the loaders that people use."""

import io
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from laion_etl.cli import app
from laion_etl.core.errors import InputError
from laion_etl.evaluate.train_check import check_training
from laion_etl.io.storage import LocalStore
from laion_etl.minicrawl.scenes import random_scene
from tests.documented_code import code_blocks, run_python
from tests.score.conftest import CRAWL, Entry, fitting, score, write_shard

pytestmark = pytest.mark.slow

HEADING = "Scored shards: `scored/<crawl>/<batch>.tar|.parquet|_img_emb.npy|_text_emb.npy|_stats.json`"


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


def test_the_lines_of_the_docs_load_the_shards(
    scored: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.chdir(scored.root)
    [code] = code_blocks("formats.md", HEADING, "python")
    found: dict[str, Any] = run_python(code.replace("CC-MAIN-2024-38", CRAWL))
    kept = sum(scored.read_stats(f"scored/{CRAWL}/{batch:09d}_stats.json").kept for batch in range(2))
    samples, streamed = found["samples"], list(found["streamed"])
    assert len(samples) == len(streamed) == kept > 40
    _, text, notes = samples[0]
    assert {Image.open(io.BytesIO(one)).format for one, _, _ in samples} == {"JPEG", "PNG", "WEBP"}
    assert text.decode()
    assert b'"similarity"' in notes
    assert all(isinstance(sample["jpg"], Image.Image) for sample in streamed)
    assert streamed[0]["json"]["similarity"] > 0
