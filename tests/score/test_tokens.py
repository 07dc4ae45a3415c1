"""CLIP's tokenizer without torch: token by token that of open_clip, in a process too."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laion_etl.score.model import MAX_TEXT_CHARS, ClipModel
from laion_etl.score.openclip import open_clip
from laion_etl.score.pixels import PixelPlan
from laion_etl.score.preparer import PreprocessInput
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.shared_tables import Plans
from laion_etl.score.tokens import ClipTokenizer, text_plan
from tests.score.test_pixels import noisy, png

TEXTS = [
    "",
    " \t\n ",
    "a",
    "Two RED stars, it's we'll I'D they've",
    "<start_of_text> <END_OF_TEXT> <end_of_text>x <b>",
    "&amp;lt;b&amp;gt; &eacute; &#x41;",
    "snake_case, (brackets) & punctuation!!! ...",
    "日本語 テスト Ελληνικά עברית العربية ١٢٣ ½ Ⅷ",
    "schÃ¶n — “quoted” ﬁne",
    "🙂👩\u200d👩\u200d👧 ☃ e\u0301",
    "\x00\x01\x7f",
    "q" * 1_000,
    "é" * 300,
    "word " * 200,
]


def random_texts(count: int) -> list[str]:
    rng = random.Random(1)
    blocks = (
        range(32, 127),
        range(32, 127),
        range(160, 0x600),
        range(0x3000, 0xA000),
        range(0x1F300, 0x1F700),
    )
    return [
        "".join(chr(rng.choice(rng.choice(blocks))) for _ in range(rng.randrange(80))) for _ in range(count)
    ]


def tokenizer(**options: Any) -> Any:
    open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(**options)


@pytest.mark.parametrize(
    "options", [{}, {"clean": "whitespace", "context_length": 12}, {"clean": "canonicalize"}], ids=str
)
def test_tokens_are_those_of_open_clip(options: dict[str, Any]) -> None:
    theirs = tokenizer(**options)
    plan = text_plan(theirs)
    assert plan is not None
    ours = ClipTokenizer(plan)
    texts = [*TEXTS, *random_texts(300)]
    for text, row in zip(texts, theirs(texts).tolist(), strict=True):
        found = ours(text)
        assert found + [0] * (plan.context - len(found)) == row, text


def test_tokens_of_real_texts_are_those_of_open_clip(shared_data: Path, tiny_model: ClipModel) -> None:
    path = shared_data / "lang" / "sentences.tsv"
    if not path.is_file():
        pytest.skip("the sentences are not in the folder of real inputs")
    texts = random.Random(2).sample(path.read_text(encoding="utf-8").splitlines(), 1_000)
    assert tiny_model.text_plan is not None
    ours = ClipTokenizer(tiny_model.text_plan)
    for text, row in zip(texts, tiny_model.tokens_of(texts).tolist(), strict=True):
        found = ours(text[:MAX_TEXT_CHARS])
        assert found + [0] * (77 - len(found)) == row, text


def test_tokenizers_built_otherwise_have_no_plan() -> None:
    assert text_plan(tokenizer(reduction_mask="simple")) is None
    assert text_plan(tokenizer(additional_special_tokens=["<mask>"])) is None
    assert text_plan(object()) is None


def test_a_process_tokenises_while_images_are_decoded(tiny_model: ClipModel) -> None:
    """Two towers with different contexts; the text of a broken image is not tokenised."""
    assert tiny_model.text_plan is not None
    short = text_plan(tokenizer(context_length=12))
    assert short is not None
    image = png(noisy((40, 40))).image
    texts = [text for text in TEXTS if text.strip()]
    samples = [PreprocessInput(image, text, tower=place % 2) for place, text in enumerate(texts)]
    with Preparers(Plans((PixelPlan(32),), (tiny_model.text_plan, short)), 20, 1, 2) as preparers:
        for _ in range(2):  # the second round overwrites rows of other texts
            samples = samples[::-1]
            prepared = preparers.prepare([*samples, PreprocessInput(("png", b"no"), "a text")])
            prepared.wait()
            assert prepared.readable == [True] * len(texts) + [False]
            for sample, row in zip(samples, prepared.tables.tokens, strict=False):
                expected = tokenizer(context_length=(77, 12)[sample.tower])([sample.text])[0].numpy()
                assert np.array_equal(row[: len(expected)], expected)
            preparers.release(prepared)
