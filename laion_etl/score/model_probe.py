"""What is tried when a model is loaded: that its embeddings say something, and which tokens it gives texts.

Finite weights may overflow, in fp16 above all: then every sample would fail, and here only a few do. A tower
that gives everything the same embedding passes all other checks.
"""

from typing import TYPE_CHECKING

from laion_etl.core.stage_stats import fingerprint
from laion_etl.score.finite import check_distinct, check_embeddings
from laion_etl.score.fixed_inputs import CAPTIONS, fixed_pixels

if TYPE_CHECKING:
    from laion_etl.score.model import ClipModel

_TRIED = 2
# Of as many tokens: a tower without its table of tokens would tell others apart by their length.
_TEXTS = ("a photo of a red star", "a photo of a blue star")


def probe(model: "ClipModel") -> None:
    """Embed fixed images and captions. Raises ModelError if they are not finite, or cannot be told apart."""
    images = model.embed_pixels(fixed_pixels(model.pixel_plan)[:_TRIED])
    check_embeddings(images, model.name, "an image")
    check_distinct(images, model.name, "images")
    texts = model.embed_texts(_TEXTS)
    check_embeddings(texts, model.name, "a text")
    check_distinct(texts, model.name, "texts")


def described_tokenizer(model: "ClipModel") -> dict[str, str | int]:
    """Return the context of a model, and a digest that changes with the tokens of texts."""
    tokens = model.tokens_of(CAPTIONS)
    return {"context": tokens.shape[1], "tokenizer": fingerprint(tokens.tolist())}
