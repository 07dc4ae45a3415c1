"""From samples to scores: similarity against its threshold, safety, beauty. Knows no files."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from laion_etl.funnel import ScoreReason
from laion_etl.records import fingerprint, subset_of_language
from laion_etl.score import tiny
from laion_etl.score.heads import LinearHead, load_head
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.safety import PROMPTS, SafetyJudge, Verdict, load_prompts
from laion_etl.score.samples import Row, Sample, preprocess_image
from laion_etl.score.thresholds import Thresholds, thresholds
from laion_etl.settings import SafetySettings, Settings

if TYPE_CHECKING:
    import torch

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
class Scorer:
    """A model with its thresholds, safety prompts and aesthetic head."""

    model: ClipModel
    thresholds: Thresholds
    judge: SafetyJudge
    head: LinearHead | None
    max_pixels: int

    @property
    def identity(self) -> str:
        """Changes with anything that can change a score, also with files behind the same name."""
        head = self.head.identity if self.head else ""
        return fingerprint(self.model.weights_sha256, self.thresholds, self.judge.identity, head)

    def score(self, samples: list[Sample], pool: ThreadPoolExecutor) -> list[Scored]:
        """One outcome per sample, in order; the pool decodes pictures."""
        prepare = partial(preprocess_image, preprocess=self.model.preprocess, max_pixels=self.max_pixels)
        pictures = list(pool.map(prepare, samples))
        readable = [
            (i, picture, text)
            for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True))
            if picture is not None and (text := sample.text) is not None and sample.notes is not None
        ]
        outcomes = [self._unreadable(sample) for sample in samples]
        if readable:
            places, pixels, texts = zip(*readable, strict=True)
            found = self._score_readable([samples[i] for i in places], pixels, texts)
            for i, outcome in zip(places, found, strict=True):
                outcomes[i] = outcome
        return outcomes

    def _unreadable(self, sample: Sample) -> Scored:
        columns = {
            "threshold": self.thresholds.of(sample.row["language"]),
            "subset": subset_of_language(sample.row["language"]),
            "reason": ScoreReason.UNREADABLE.value,
        }
        return Scored(sample, columns, ScoreReason.UNREADABLE)

    def _score_readable(
        self, samples: list[Sample], pixels: "Iterable[torch.Tensor]", texts: Iterable[str]
    ) -> list[Scored]:
        written = list(texts)
        images, captions = self.model.embed_images(list(pixels)), self.model.embed_texts(written)
        similarities = (images * captions).sum(axis=1)
        verdicts = self.judge.judge(images, written)
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
    model = load_model(settings.clip)
    prompts = load_prompts(_prompts_file(settings.safety, model))
    return Scorer(
        model=model,
        thresholds=thresholds(settings.clip),
        judge=SafetyJudge(model, prompts),
        head=_head(settings.safety, model),
        max_pixels=settings.clip.max_pixels,
    )


def _prompts_file(safety: SafetySettings, model: ClipModel) -> Path:
    if safety.prompts:
        return Path(safety.prompts).expanduser()
    return PROMPTS / (f"{tiny.NAME}.json" if model.is_tiny else "clip.json")


def _head(safety: SafetySettings, model: ClipModel) -> LinearHead | None:
    """The named head, else the tiny model's own; other models have none unless one is named."""
    if safety.aesthetic_head:
        return load_head(Path(safety.aesthetic_head).expanduser(), model.dim)
    return load_head(tiny.AESTHETIC_FILE, model.dim) if model.is_tiny else None
