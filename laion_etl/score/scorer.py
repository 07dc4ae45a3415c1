"""From samples to scores: similarity against its threshold, safety, beauty. Knows no files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laion_etl.errors import ModelError
from laion_etl.funnel import ScoreReason
from laion_etl.records import fingerprint, subset_of_language
from laion_etl.score import tiny
from laion_etl.score.heads import LinearHead, TextAnchors, checked_file, load_anchors, load_head
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.nsfwhead import DenseHead, load_nsfw_head
from laion_etl.score.pixels import PixelPlan, Pixels
from laion_etl.score.preparers import Prepared, Preparers
from laion_etl.score.safety import PROMPTS, SafetyJudge, Verdict, load_prompts
from laion_etl.score.samples import Row, Sample
from laion_etl.score.thresholds import Thresholds, thresholds
from laion_etl.score.watermark import WatermarkModel, load_watermark_model, read_watermark_model
from laion_etl.settings import ClipSettings, SafetySettings, Settings

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scored:
    """One sample's outcome: `columns` are those SCORED_SCHEMA adds; embeddings are None when unreadable."""

    sample: Sample
    columns: Row
    reason: ScoreReason | None
    image_embedding: Floats | None = None
    text_embedding: Floats | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Samples whose pictures are being decoded. A text of None is that of a sample nobody can score."""

    samples: list[Sample]
    texts: list[str | None]
    prepared: Prepared


def begin_chunk(samples: list[Sample], preparers: Preparers) -> Chunk:
    """Hands the pictures of readable samples to the preparers."""
    texts = [sample.text if sample.notes is not None else None for sample in samples]
    pictures = [
        sample.image if text is not None else None for sample, text in zip(samples, texts, strict=True)
    ]
    return Chunk(samples, texts, preparers.prepare(pictures))


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model with its thresholds, safety prompts and heads, and the model of other languages, if any.

    Safety, beauty and the image embeddings that are kept come from `model` for every sample.
    """

    model: ClipModel
    other: ClipModel | None
    thresholds: Thresholds
    judge: SafetyJudge
    head: LinearHead | None
    nsfw: DenseHead | None
    violence: TextAnchors | None
    watermark: WatermarkModel | None
    pixel_plans: tuple[PixelPlan, ...]  # of the CLIP model, and of the watermark model if there is one

    @property
    def identity(self) -> str:
        """Changes with anything that can change a score, also with files behind the same name."""
        heads = [head.identity if head else "" for head in self._heads]
        models = [model.weights_sha256 for model in (self.model, self.other) if model]
        return fingerprint(models, self.thresholds, self.judge.identity, heads)

    @property
    def _heads(self) -> tuple[LinearHead | DenseHead | TextAnchors | WatermarkModel | None, ...]:
        return self.head, self.nsfw, self.violence, self.watermark

    def _similarities(
        self, samples: Sequence[Sample], images: Floats, pixels: Pixels, texts: Sequence[str]
    ) -> tuple[Floats, Floats]:
        """Cosines (n), and text embeddings (n, dim): each by the model of the sample's language."""
        other = self.other
        if other is None:
            captions = self.model.embed_texts(texts)
            return (images * captions).sum(axis=1), captions
        captions, cosines = np.empty_like(images), np.empty(len(samples), np.float32)
        english = np.asarray([sample.row["language"] == "en" for sample in samples])
        for model, places in ((self.model, np.flatnonzero(english)), (other, np.flatnonzero(~english))):
            if not len(places):
                continue
            shown = images[places]
            if model is other and other.image_sha256 != self.model.image_sha256:
                shown = other.embed_pixels(pixels[places])
            captions[places] = model.embed_texts([texts[int(place)] for place in places])
            cosines[places] = (shown * captions[places]).sum(axis=1)
        return cosines, captions

    def score(self, chunk: Chunk, preparers: Preparers) -> list[Scored]:
        """One outcome per sample, in order."""
        samples, prepared = chunk.samples, chunk.prepared
        prepared.wait()
        places = prepared.places
        texts = [text for i in places if (text := chunk.texts[i]) is not None]
        everything = len(places) == len(samples)
        pixels = prepared.pixels if everything else [table[places] for table in prepared.pixels]
        outcomes = [self._unreadable(sample) for sample in samples]
        if places:
            found = self._score_readable([samples[i] for i in places], pixels, texts)
            for i, outcome in zip(places, found, strict=True):
                outcomes[i] = outcome
        preparers.release(prepared)
        return outcomes

    def _unreadable(self, sample: Sample) -> Scored:
        columns = {
            "threshold": self.thresholds.of(sample.row["language"]),
            "subset": subset_of_language(sample.row["language"]),
            "reason": ScoreReason.UNREADABLE.value,
        }
        return Scored(sample, columns, ScoreReason.UNREADABLE)

    def _score_readable(
        self, samples: list[Sample], pixels: Sequence[Pixels], texts: Sequence[str]
    ) -> list[Scored]:
        images = self.model.embed_pixels(pixels[0])
        similarities, captions = self._similarities(samples, images, pixels[0], texts)
        verdicts = self.judge.judge(images, texts)
        if self.nsfw is not None:
            found = self.nsfw.score(images).tolist()
            verdicts = [replace(verdict, punsafe=p) for verdict, p in zip(verdicts, found, strict=True)]
        if self.violence is not None:
            found = self.violence.score(images).tolist()
            verdicts = [replace(verdict, pviolence=p) for verdict, p in zip(verdicts, found, strict=True)]
        if self.watermark is not None:
            found = self.watermark.score(pixels[1]).tolist()
            verdicts = [replace(verdict, pwatermark=p) for verdict, p in zip(verdicts, found, strict=True)]
        beauty = self.head.score(images).tolist() if self.head else [None] * len(samples)
        return [
            self._outcome(sample, float(similarities[i]), verdicts[i], beauty[i], (images[i], captions[i]))
            for i, sample in enumerate(samples)
        ]

    def _outcome(
        self,
        sample: Sample,
        similarity: float,
        verdict: Verdict,
        aesthetic: float | None,
        embeddings: tuple[Floats, Floats],
    ) -> Scored:
        language = sample.row["language"]
        threshold = self.thresholds.of(language)
        reason = None
        if verdict.must_drop:  # counted as such whatever the similarity
            reason = ScoreReason.SUSPECTED_UNDERAGE
        elif not similarity >= threshold:
            reason = ScoreReason.LOW_SIMILARITY
        columns = {
            "similarity": similarity,
            "threshold": threshold,
            "nsfw_tag": verdict.nsfw_tag.value,
            "punsafe": verdict.punsafe,
            "pviolence": verdict.pviolence,
            "punderage": verdict.punderage,
            "pwatermark": verdict.pwatermark,
            "aesthetic": aesthetic,
            "subset": subset_of_language(language),
            "reason": reason.value if reason else None,
        }
        return Scored(sample, columns, reason, *embeddings)


def load_scorer(settings: Settings) -> Scorer:
    """Everything scoring needs, from the settings; raises ModelError."""
    model, safety = load_model(settings.clip), settings.safety
    prompts = load_prompts(_prompts_file(settings.safety, model))
    watermark = _watermark(settings, model)
    plans = (model.pixel_plan, *((watermark.plan,) if watermark else ()))
    return Scorer(
        model=model,
        other=_other(settings.clip, model),
        thresholds=thresholds(settings.clip),
        judge=SafetyJudge(model, prompts),
        head=_head(settings.safety, model),
        nsfw=load_nsfw_head(checked_file(safety.nsfw_head), model.dim) if safety.nsfw_head else None,
        violence=load_anchors(checked_file(safety.violence_head), model.dim)
        if safety.violence_head
        else None,
        watermark=watermark,
        pixel_plans=tuple(replace(plan, max_pixels=settings.clip.max_pixels) for plan in plans),
    )


def _other(settings: ClipSettings, model: ClipModel) -> ClipModel | None:
    """The model of other languages; raises ModelError unless it takes the pixels of the first one."""
    if not settings.other_model:
        return None
    other = load_model(replace(settings, model=settings.other_model, pretrained=settings.other_pretrained))
    if other.pixel_plan != model.pixel_plan or other.dim != model.dim:
        raise ModelError(
            f"{other.name} takes other pixels or makes other embeddings than {model.name}: "
            f"{other.pixel_plan.side} pixels and {other.dim} numbers, {model.pixel_plan.side} and {model.dim}"
        )
    return other


def _prompts_file(safety: SafetySettings, model: ClipModel) -> Path:
    if safety.prompts:
        return Path(safety.prompts).expanduser()
    return PROMPTS / (f"{tiny.NAME}.json" if model.is_tiny else "clip.json")


def _head(safety: SafetySettings, model: ClipModel) -> LinearHead | None:
    """The named head, else the tiny model's own; other models have none unless one is named."""
    if safety.aesthetic_head:
        return load_head(checked_file(safety.aesthetic_head), model.dim)
    return load_head(tiny.AESTHETIC_FILE, model.dim) if model.is_tiny else None


def _watermark(settings: Settings, model: ClipModel) -> WatermarkModel | None:
    """The named model, else the tiny model's own; others have the prompts, or nothing."""
    if settings.safety.watermark_model:
        return load_watermark_model(settings, model.device)
    return read_watermark_model(tiny.WATERMARK_FILE, model.device) if model.is_tiny else None
