"""From samples to scores: similarity against its threshold, safety, aesthetics. Reads and writes no files."""

from dataclasses import dataclass, replace
from pathlib import Path

from laion_etl.core.errors import ModelError
from laion_etl.core.funnel import ScoreReason
from laion_etl.core.schemas import subset_of_language
from laion_etl.core.stage_stats import fingerprint
from laion_etl.score import demo_model
from laion_etl.score.device_transfer import Floats
from laion_etl.score.encode import (
    Embeddings,
    EncodeBatch,
    InFlightBatch,
    Towers,
    begin_batch,
    compute,
    text_plans,
)
from laion_etl.score.heads import LinearHead, TextAnchors, checked_file, load_anchors, load_head
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.nsfw_head import DenseHead, load_nsfw_head
from laion_etl.score.pixels import PixelPlan
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.safety import PROMPTS, SafetyJudge, Verdict, load_prompts
from laion_etl.score.shard_reader import Row, Sample
from laion_etl.score.shared_tables import Plans
from laion_etl.score.thresholds import Thresholds, thresholds
from laion_etl.score.watermark import WatermarkModel, load_watermark_model, read_watermark_model
from laion_etl.settings import ClipSettings, SafetySettings, Settings

_ARITHMETIC = 2  # version of the summation order: raise it when the last bits of scores change


@dataclass(frozen=True, slots=True)
class Scored:
    """One sample's outcome: `columns` are those SCORED_SCHEMA adds; embeddings are None when unreadable."""

    sample: Sample
    columns: Row
    reason: ScoreReason | None
    image_embedding: Floats | None = None
    text_embedding: Floats | None = None


@dataclass(frozen=True, slots=True)
class SampleScorer:
    """A model with its thresholds, safety prompts and heads, and the model of other languages, if any.

    Safety, aesthetic score and the stored image embeddings come from `model` for every sample.
    """

    model: ClipModel
    multilingual_model: ClipModel | None
    thresholds: Thresholds
    safety: SafetyJudge
    aesthetic_head: LinearHead | None
    nsfw: DenseHead | None
    violence: TextAnchors | None
    watermark: WatermarkModel | None
    pixel_plans: tuple[PixelPlan, ...]  # of the CLIP model, and of the watermark model if there is one

    @property
    def fingerprint(self) -> str:
        """Changes with anything that can change a score, including files replaced under the same name."""
        heads = [head.identity if head else "" for head in self._heads]
        models = [model.weights_sha256 for model in (self.model, self.multilingual_model) if model]
        return fingerprint(_ARITHMETIC, models, self.thresholds, self.safety.fingerprint, heads)

    @property
    def _heads(self) -> tuple[LinearHead | DenseHead | TextAnchors | WatermarkModel | None, ...]:
        return self.aesthetic_head, self.nsfw, self.violence, self.watermark

    @property
    def towers(self) -> Towers:
        """The models that embed texts."""
        return (self.model, self.multilingual_model) if self.multilingual_model else (self.model,)

    @property
    def plans(self) -> Plans:
        """What the preparers produce for each sample."""
        return Plans(self.pixel_plans, text_plans(self.towers))

    def begin(self, samples: list[Sample], preparers: Preparers) -> EncodeBatch:
        """First step: samples to preparers."""
        return begin_batch(samples, self.towers, preparers)

    def compute(self, batch: EncodeBatch) -> InFlightBatch:
        """Second step: prepared samples to the device."""
        return compute(batch, self.towers, self.watermark)

    def score(self, in_flight: InFlightBatch, preparers: Preparers) -> list[Scored]:
        """Last step: one outcome per sample, in order."""
        batch, found = in_flight.batch, in_flight.get()
        preparers.release(batch.prepared)
        outcomes = [self._unreadable(sample) for sample in batch.samples]
        if found is not None:
            for place, outcome in zip(found.places, self._score_readable(batch, found), strict=True):
                outcomes[place] = outcome
        return outcomes

    def _unreadable(self, sample: Sample) -> Scored:
        columns = {
            "threshold": self.thresholds.of(sample.row["language"]),
            "subset": subset_of_language(sample.row["language"]),
            "reason": ScoreReason.UNREADABLE.value,
        }
        return Scored(sample, columns, ScoreReason.UNREADABLE)

    def _score_readable(self, batch: EncodeBatch, found: Embeddings) -> list[Scored]:
        images = found.images
        verdicts = self.safety.judge(images, [batch.texts[place] or "" for place in found.places])
        seen = {
            "punsafe": self.nsfw.score(images) if self.nsfw else None,
            "pviolence": self.violence.score(images) if self.violence else None,
            "pwatermark": found.watermarks,
        }
        given = {name: values.tolist() for name, values in seen.items() if values is not None}
        aesthetics = (
            self.aesthetic_head.score(images).tolist() if self.aesthetic_head else [None] * len(verdicts)
        )
        return [
            self._outcome(
                batch.samples[place],
                float(found.similarities[i]),
                replace(verdicts[i], **{name: values[i] for name, values in given.items()}),
                aesthetics[i],
                (images[i], found.captions[i]),
            )
            for i, place in enumerate(found.places)
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
        if verdict.must_drop:  # takes precedence over a low similarity
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


def load_scorer(settings: Settings) -> SampleScorer:
    """Everything scoring needs, from the settings; raises ModelError."""
    model, safety = load_model(settings.clip), settings.safety
    prompts = load_prompts(_prompts_file(settings.safety, model))
    watermark = _watermark(settings, model)
    plans = (model.pixel_plan, *((watermark.plan,) if watermark else ()))
    return SampleScorer(
        model=model,
        multilingual_model=_multilingual_model(settings.clip, model),
        thresholds=thresholds(settings.clip),
        safety=SafetyJudge(model, prompts),
        aesthetic_head=_aesthetic_head(settings.safety, model),
        nsfw=load_nsfw_head(checked_file(safety.nsfw_head), model.dim) if safety.nsfw_head else None,
        violence=load_anchors(checked_file(safety.violence_head), model.dim)
        if safety.violence_head
        else None,
        watermark=watermark,
        pixel_plans=tuple(replace(plan, max_pixels=settings.clip.max_pixels) for plan in plans),
    )


def _multilingual_model(settings: ClipSettings, model: ClipModel) -> ClipModel | None:
    """The model for other languages; raises ModelError unless it preprocesses images like the first one."""
    if not settings.other_model:
        return None
    other = load_model(replace(settings, model=settings.other_model, pretrained=settings.other_pretrained))
    if other.pixel_plan != model.pixel_plan or other.dim != model.dim:
        raise ModelError(
            f"cannot use {other.name} for other languages: it has {other.pixel_plan.side} pixels a side and "
            f"{other.dim} numbers an embedding, {model.name} has {model.pixel_plan.side} and {model.dim}; "
            "set LAION_ETL_CLIP_OTHER_MODEL to a model that matches"
        )
    return other


def _prompts_file(safety: SafetySettings, model: ClipModel) -> Path:
    if safety.prompts:
        return Path(safety.prompts).expanduser()
    return PROMPTS / (f"{demo_model.NAME}.json" if model.is_tiny else "clip.json")


def _aesthetic_head(safety: SafetySettings, model: ClipModel) -> LinearHead | None:
    """The head of the settings, else the tiny model's own, else None."""
    if safety.aesthetic_head:
        return load_head(checked_file(safety.aesthetic_head), model.dim)
    return load_head(demo_model.AESTHETIC_FILE, model.dim) if model.is_tiny else None


def _watermark(settings: Settings, model: ClipModel) -> WatermarkModel | None:
    """The model of the settings, else the tiny model's own, else None: prompts may fill `pwatermark`."""
    if settings.safety.watermark_model:
        return load_watermark_model(settings, model.device)
    if not model.is_tiny:
        return None
    return read_watermark_model(demo_model.WATERMARK_FILE, model.device, settings.clip.threads)
