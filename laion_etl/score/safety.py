"""Zero-shot safety tags from CLIP, by the rule of the original pipeline.

An image is compared with text categories on both sides of a boundary between safe and unsafe. Its two
nearest categories decide: NSFW if both are unsafe, UNSURE if one is, otherwise UNLIKELY. Images that may
show a minor, judged by their categories or by words of the caption, are suspected; together with NSFW or
UNSURE, or with a high punsafe of a trained head (LAION_ETL_SAFETY_DROP_PUNSAFE), they are dropped and never
published. The rule errs on the side of suspicion.

Prompts are data: `prompts/clip.json` for real CLIP models, `prompts/laion-etl-tiny.json` for the demo's
model, whose only unsafe category is the drawn hazard sign. LAION's probability columns `pviolence`,
`pwatermark` and `punderage` come from two-sided contrasts in the same file; a missing contrast
leaves its column empty.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laion_etl.core.errors import ModelError
from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.plain_json import parse_json
from laion_etl.core.stage_stats import fingerprint
from laion_etl.score.finite import SAME, check_embeddings
from laion_etl.score.head import HeadInput
from laion_etl.score.model import ClipModel
from laion_etl.score.products import product
from laion_etl.score.underage_words import UnderageWords, folded

Floats = NDArray[np.float32]

PROMPTS = Path(__file__).parent / "prompts"
TEMPERATURE = 100.0  # CLIP's trained logit scale
_NOT_STATED = "Not stated."
_CONTRASTS = ("underage", "violence", "watermark")
_KEYS = frozenset({"about", "provenance", "validation", "nsfw", "underage_words", *_CONTRASTS})
# Values of this head that are not stored: they decide.
MUST_DROP, SUSPECTED_UNDERAGE = "must_drop", "suspected_underage"
NOT_STORED = frozenset({MUST_DROP, SUSPECTED_UNDERAGE})


class NsfwTag(StrEnum):
    """LAION's NSFW column."""

    UNLIKELY = "UNLIKELY"
    UNSURE = "UNSURE"
    NSFW = "NSFW"


Categories = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Categories without and with the thing looked for; a category is one or more prompts, averaged."""

    without: Categories
    present: Categories


@dataclass(frozen=True, slots=True)
class SafetyPrompts:
    """What images are compared with, and the words that make a caption suspect."""

    nsfw: Contrast
    contrasts: Mapping[str, Contrast]
    underage_words: frozenset[str]  # besides the shipped ones (underage_words.py)
    origin: "PromptsOrigin"


@dataclass(frozen=True, slots=True)
class PromptsOrigin:
    """Where prompts come from, and what they were measured on, in sentences of their file."""

    name: str
    provenance: str
    validation: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The safety columns of one sample; a probability is None if the prompts have no contrast for it."""

    nsfw_tag: NsfwTag
    punsafe: float
    pviolence: float | None
    punderage: float | None
    pwatermark: float | None
    suspected_underage: bool

    @property
    def must_drop(self) -> bool:
        """Suspected under age together with NSFW or UNSURE."""
        return self.suspected_underage and self.nsfw_tag is not NsfwTag.UNLIKELY


def load_prompts(path: Path) -> SafetyPrompts:
    """Reads a prompt file; raises ModelError naming the mistake in it."""
    try:
        document = parse_json(path.read_text(encoding="utf-8-sig"), on_pairs=_once)
        _check_names(document, _KEYS, ("nsfw", "underage_words"))
        contrasts = {
            name: _contrast(document[name]) for name in _CONTRASTS if document.get(name) not in (None, {})
        }
        words = frozenset(map(_word, _texts(document["underage_words"])))
        stated = (str(document.get(name) or _NOT_STATED) for name in ("provenance", "validation"))
        return SafetyPrompts(_contrast(document["nsfw"]), contrasts, words, PromptsOrigin(path.name, *stated))
    except (OSError, ValueError, TypeError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelError(
            f"cannot use the safety prompts {path}: {cause}; compare it with the files in "
            "laion_etl/score/prompts"
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Raises ValueError for a name that repeats: only its last value would count."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _contrast(document: Any) -> Contrast:
    sides = ("without", "present")
    _check_names(document, sides, sides)
    if not all(isinstance(document[side], dict) for side in sides):
        raise TypeError("a side is not an object of categories")
    without, present = (
        tuple(_texts(prompts) for prompts in document[side].values()) for side in ("without", "present")
    )
    if not all((*without, *present)) or not without or not present:
        raise ValueError("every side needs categories, every category a prompt")
    return Contrast(without, present)


def _check_names(document: Any, known: Collection[str], needed: Sequence[str]) -> None:
    """Raise ValueError for a part with another name, which would be left out, and for one that is missing."""
    if not isinstance(document, dict):
        raise TypeError(f"{document!r:.60} is not an object with the parts {' and '.join(needed)}")
    if unknown := sorted(set(document) - set(known)):
        raise ValueError(f"there is no part {unknown[0]!r}")
    if missing := [name for name in needed if name not in document]:
        raise ValueError(f"the part {missing[0]!r} is missing")


def _texts(found: Any) -> tuple[str, ...]:
    """Return a list of texts. Raises ValueError for anything else: the letters of one text are texts, too."""
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise ValueError(f"{found!r:.60} is not a list of texts")
    for text in found:
        text.encode()  # half of a surrogate pair has no UTF-8
    return tuple(found)


def _word(text: str) -> str:
    """Return a word as captions are searched for it. Raises ValueError for one that could not be found."""
    if not any(map(str.isalnum, word := folded(text).strip())):
        raise ValueError(f"{text!r:.60} of underage_words has no letter")
    return word


class Suspects(Enum):
    """Of which samples the captions are searched for words: that costs most of what judging a sample does."""

    ALL = "all"
    BY_TAG = "by tag"  # those that are dropped if suspected: the others are kept either way


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a model sees in n images: tags, masses of the contrasts, and which may show a minor."""

    tags: list[NsfwTag]
    punsafe: list[float]
    masses: Mapping[str, list[float]]
    young: list[bool]


class SafetyJudge:
    """Prompts embedded once for a model; the first of the heads."""

    columns = (
        HeadColumn("nsfw_tag", "UNLIKELY, UNSURE or NSFW", "string"),
        HeadColumn("punsafe", "softmax mass of the unsafe categories"),
        *(HeadColumn(f"p{name}", f"softmax mass of the {name} categories") for name in _CONTRASTS),
        HeadColumn(MUST_DROP, "whether the sample must not be kept", "bool"),
        HeadColumn(SUSPECTED_UNDERAGE, "whether the sample may show a minor", "bool"),
    )

    def __init__(self, model: ClipModel, prompts: SafetyPrompts, suspects: Suspects = Suspects.ALL) -> None:
        self._nsfw = _Boundary(model, prompts.nsfw)
        self._contrasts = {name: _Boundary(model, found) for name, found in prompts.contrasts.items()}
        self._words = UnderageWords(prompts.underage_words)
        self._suspects = suspects
        self.origin = prompts.origin
        self.identity = fingerprint(prompts.nsfw, dict(prompts.contrasts), *self._words.identity)

    def score(self, samples: HeadInput) -> dict[str, list[Any] | None]:
        """Return a value for each sample by column; None for a probability without a contrast."""
        seen = self._look_at(samples.images)
        unsafe = [tag is not NsfwTag.UNLIKELY for tag in seen.tags]
        asked = unsafe if self._suspects is Suspects.BY_TAG else [True] * len(unsafe)
        suspected = [
            is_asked and (young or self.names_underage(text))
            for is_asked, young, text in zip(asked, seen.young, samples.captions, strict=True)
        ]
        return {
            "nsfw_tag": [tag.value for tag in seen.tags],
            "punsafe": seen.punsafe,
            MUST_DROP: [suspect and bad for suspect, bad in zip(suspected, unsafe, strict=True)],
            SUSPECTED_UNDERAGE: suspected,
            **{f"p{name}": seen.masses.get(name) for name in _CONTRASTS},
        }

    def judge(self, images: Floats, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per sample from L2-normalised image embeddings (n, dim) and their texts."""
        seen = self._look_at(images)
        unknown = [None] * len(texts)
        columns = (
            seen.tags,
            seen.punsafe,
            *(seen.masses.get(name, unknown) for name in ("violence", "underage", "watermark")),
            [young or self.names_underage(text) for young, text in zip(seen.young, texts, strict=True)],
        )
        return [Verdict(*values) for values in zip(*columns, strict=True)]

    def _look_at(self, images: Floats) -> "_Seen":
        unsafe_of_two, punsafe = self._nsfw.compare(images)
        compared = {name: boundary.compare(images) for name, boundary in self._contrasts.items()}
        young = compared["underage"][0] > 0 if "underage" in compared else np.zeros(len(images), bool)
        tags = tuple(NsfwTag)
        return _Seen(
            [tags[unsafe] for unsafe in unsafe_of_two.tolist()],
            punsafe.tolist(),
            {name: mass.tolist() for name, (_, mass) in compared.items()},
            young.tolist(),
        )

    def names_underage(self, text: str) -> bool:
        """Whether the text has one of the shipped words or of the prompt file's."""
        return self._words.found_in(text)


class _Boundary:
    """Embedded categories, those of `present` last."""

    def __init__(self, model: ClipModel, contrast: Contrast) -> None:
        categories = [*contrast.without, *contrast.present]
        prompts = [prompt for prompts in categories for prompt in prompts]
        embedded = model.embed_texts(prompts)
        for prompt, embedding in zip(prompts, embedded, strict=True):
            check_embeddings(embedding[None], model.name, f"the safety prompt {prompt!r}")
        starts = np.cumsum([0, *map(len, categories[:-1])])
        sizes = np.asarray([len(prompts) for prompts in categories], np.float32)
        means = np.add.reduceat(embedded, starts, axis=0) / sizes[:, None]
        self._categories = means / np.linalg.norm(means, axis=1, keepdims=True)
        check_embeddings(self._categories, model.name, "a category of the safety prompts")
        self._boundary = len(contrast.without)
        self._check_sides(model.name)

    def _check_sides(self, model: str) -> None:
        """Raise ModelError for a category of one side that the model cannot tell from one of the other."""
        without, present = np.split(self._categories, [self._boundary])
        if (np.abs(without[:, None] - present[None]).max(axis=2) < SAME).any():
            raise ModelError(
                f"cannot use the model {model}: its embeddings of safety prompts on both sides of a boundary "
                "are the same; use other prompts (LAION_ETL_SAFETY_PROMPTS), or other weights"
            )

    def compare(self, images: Floats) -> tuple[NDArray[np.intp], Floats]:
        """How many of the two nearest categories are `present`, and the softmax mass of `present`."""
        logits = TEMPERATURE * product(images, self._categories.T)
        # Of equal ones the last ranks first: those of `present`.
        nearest = np.argsort(logits, axis=1, kind="stable")[:, -2:]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        present = np.arange(len(self._categories)) >= self._boundary
        sums = product(powers, np.stack([present, np.ones_like(present)], axis=1))
        return (nearest >= self._boundary).sum(axis=1), (sums[:, 0] / sums[:, 1]).astype(np.float32)
