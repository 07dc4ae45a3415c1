"""A multilingual text tower from Hugging Face's library, in miniature: from its files to scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laion_etl.io.storage import Store
from laion_etl.score.model import load_model
from laion_etl.score.openclip import create_network, open_clip
from tests.score.conftest import TINY, TINY_SETTINGS, fitting, read_parquet, score, write_shard
from tests.score.test_stage import HEART, STAR

NAME = "tiny-multilingual"
WORDS = [
    "ein",
    "rotes",
    "herz",
    "auf",
    "roten",
    "ziegeln",
    "une",
    "étoile",
    "rouge",
    "sur",
    "la",
    "plage",
    "красная",
    "звезда",
    "a",
    "red",
    "star",
    "heart",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-RoBERTa of one narrow layer with a word tokenizer, registered with open_clip; random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

    folder = tmp_path_factory.mktemp("tower")
    vocabulary = {
        word: place for place, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *dict.fromkeys(WORDS)])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - not a password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in special.items()}
    ).save_pretrained(folder)
    XLMRobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=100,
        pad_token_id=1,
    ).save_pretrained(folder)
    tiny = open_clip().get_model_config("laion-etl-tiny")
    config = {
        "embed_dim": tiny["embed_dim"],
        "vision_cfg": tiny["vision_cfg"],
        "text_cfg": {
            "hf_model_name": str(folder),
            "hf_tokenizer_name": str(folder),
            "hf_pooler_type": "mean_pooler",
            "context_length": 77,
        },
    }
    (folder / f"{NAME}.json").write_text(json.dumps(config))
    open_clip().add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(3)
    torch.save(create_network(NAME).state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def test_its_texts_are_encoded_without_padding_as_open_clip_does(weights: Path) -> None:
    model = load_model(replace(TINY, model=NAME, pretrained=str(weights)))
    texts = [" ".join(WORDS[:length]) for length in range(1, len(WORDS))] + ["неизвестно", "star " * 300]
    with torch.inference_mode():
        expected = model.network.encode_text(model.tokenize(texts)).numpy()  # type: ignore[operator]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(model.embed_texts(texts), expected, atol=1e-5)


def test_it_scores_the_pairs_that_are_not_english(weights: Path, store: Store) -> None:
    write_shard(store, [fitting(STAR), fitting(HEART, "de", 1)])
    score(store)
    english, german = (row["similarity"] for row in read_parquet(store))
    settings = replace(TINY_SETTINGS, clip=replace(TINY, other_model=NAME, other_pretrained=str(weights)))
    stats = score(store, settings)
    rows = read_parquet(store)
    assert stats.details["other_model"] == f"{NAME}/weights.pt"
    assert np.isclose(float(str(rows[0]["similarity"])), float(str(english)), atol=1e-6)
    assert not np.isclose(float(str(rows[1]["similarity"])), float(str(german)), atol=1e-3)
