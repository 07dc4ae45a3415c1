"""Training the tiny CLIP: its shortcuts give what open_clip gives, and a short run learns and is seeded."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from laion_etl.minicrawl.scenes import Scene, random_scene
from laion_etl.score import demo_model
from laion_etl.score.openclip import create_network
from scripts.training import clip as train_clip
from scripts.training.captions import CLASSES, CaptionTable, attributes
from scripts.training.clip import ClipTraining, encode_texts

pytestmark = pytest.mark.slow

STAR = Scene("red", "star", "beach", "two")


@pytest.fixture(scope="module")
def texts() -> CaptionTable:
    return CaptionTable()


def test_texts_without_padding_are_encoded_as_open_clip_does(texts: CaptionTable) -> None:
    rng = random.Random(1)
    network = create_network(demo_model.NAME).eval()
    tokens = [texts.sample(random_scene(rng), rng) for _ in range(40)]
    tokens += [texts.sample_unknown(rng) for _ in range(10)]
    padded = torch.tensor([row + [0] * (77 - len(row)) for row in tokens])
    with torch.no_grad():
        assert torch.allclose(encode_texts(network, tokens), network.encode_text(padded), atol=1e-5)


def test_compact_weights_expand_to_what_was_trained(texts: CaptionTable) -> None:
    network = create_network(demo_model.NAME)
    state = network.state_dict()
    expanded = demo_model.expand(demo_model.compact(state, texts.seen), network.vocab_size)
    network.load_state_dict(expanded)
    name = "token_embedding.weight"
    assert torch.allclose(expanded[name][texts.seen], state[name][texts.seen], atol=1e-3)
    assert torch.allclose(expanded[name][texts.unknown], state[name][texts.unknown], atol=1e-3)
    unseen = torch.ones(network.vocab_size, dtype=torch.bool)
    unseen[texts.seen] = False
    assert (expanded[name][unseen] == expanded[name][texts.unknown]).all()


def test_equal_scenes_share_their_attributes_and_hazards_ignore_the_layout() -> None:
    assert attributes(STAR) == attributes(replace(STAR))
    assert attributes(STAR) != attributes(replace(STAR, layout="row"))
    hazard = replace(STAR, hazard=True)
    assert attributes(hazard) == attributes(replace(hazard, layout="row")) != attributes(STAR)
    rng = random.Random(2)
    found = torch.tensor([attributes(random_scene(rng)) for _ in range(2_000)])
    assert (found.max(dim=0).values + 1).tolist() == list(CLASSES)


def test_a_short_training_writes_all_files_and_is_seeded(
    texts: CaptionTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ClipTraining(images=64, steps=3, batch=32, warmup=1, held_out=20, threads=1)
    monkeypatch.setattr("laion_etl.minicrawl.aesthetic.SCENES", 30)
    monkeypatch.setattr("laion_etl.minicrawl.aesthetic.HELD_OUT", 10)
    monkeypatch.setattr(train_clip, "CaptionTable", lambda: texts)
    written = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        train_clip.train(plan, folder)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    first, second = written
    assert set(first) == {
        demo_model.WEIGHTS_FILE.name,
        demo_model.METADATA_FILE.name,
        demo_model.AESTHETIC_FILE.name,
    }
    assert first[demo_model.METADATA_FILE.name] == second[demo_model.METADATA_FILE.name]
    assert first[demo_model.WEIGHTS_FILE.name] == second[demo_model.WEIGHTS_FILE.name]
