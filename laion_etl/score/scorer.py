"""From samples to scores: similarity against its threshold, and the values of heads.

Reads and writes no files.
"""

from dataclasses import dataclass, replace

from laion_etl.core.errors import ModelError
from laion_etl.core.funnel import ScoreReason
from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.rule_failures import described
from laion_etl.core.schemas import SCORED_SCHEMA, SHARD_SCHEMA, subset_of_language
from laion_etl.core.stage_stats import fingerprint
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
from laion_etl.score.head import Head, HeadInput, Scores, is_scored, score_all
from laion_etl.score.head_registry import load_heads, own_columns, watermark_model
from laion_etl.score.model import ClipModel, load_model
from laion_etl.score.pixels import PixelPlan
from laion_etl.score.preprocess_pool import Preparers
from laion_etl.score.reference import warn_of_difference
from laion_etl.score.safety import MUST_DROP, SUSPECTED_UNDERAGE
from laion_etl.score.shard_reader import Row, Sample
from laion_etl.score.shared_tables import Plans
from laion_etl.score.thresholds import Thresholds, thresholds, warn_of_other_thresholds
from laion_etl.score.watermark import WatermarkModel
from laion_etl.score.weights_origin import KEYS
from laion_etl.settings import ClipSettings, Settings

_ARITHMETIC = 3  # version of pixels and sums: raise it when scores change, be it in the last bits
_NO_SCORES: Row = {name: None for name in SCORED_SCHEMA.names if name not in SHARD_SCHEMA.names}


@dataclass(frozen=True, slots=True)
class Scored:
    """One sample's outcome: `columns` are those SCORED_SCHEMA adds; embeddings are None when unreadable.

    `failures`: the heads that raised an exception for it, each with the exception.
    """

    sample: Sample
    columns: Row
    reason: ScoreReason | None
    image_embedding: Floats | None = None
    text_embedding: Floats | None = None
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SampleScorer:
    """A model with its thresholds and heads, and the model of other languages, if any.

    Scores of heads and the stored image embeddings come from `model` for every sample.
    """

    model: ClipModel
    multilingual_model: ClipModel | None
    thresholds: Thresholds
    heads: tuple[Head, ...]
    columns: tuple[HeadColumn, ...]  # that the heads add to SCORED_SCHEMA
    pixel_plans: tuple[PixelPlan, ...]  # of the CLIP model, and of the watermark model if there is one
    drop_punsafe: float | None = None  # of a trained head, from which on a suspected minor is dropped

    @property
    def fingerprint(self) -> str:
        """Changes with anything that can change a score, including files replaced under the same name."""
        heads = [([column.name for column in head.columns], head.identity) for head in self.heads]
        models = [(model.weights_sha256, model.identity) for model in self.towers]
        return fingerprint(_ARITHMETIC, models, self.thresholds, heads, self.columns, self.drop_punsafe)

    @property
    def watermark(self) -> WatermarkModel | None:
        """The model that a device runs on pixels, beside the CLIP model."""
        return watermark_model(self.heads)

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
        outcomes = [self._without_scores(sample, ScoreReason.UNREADABLE) for sample in batch.samples]
        if found is not None:
            for place, outcome in zip(found.places, self._score_readable(batch, found), strict=True):
                outcomes[place] = outcome
        return outcomes

    def _without_scores(self, sample: Sample, reason: ScoreReason) -> Scored:
        columns = {
            "threshold": self.thresholds.of(sample.row["language"]),
            "subset": subset_of_language(sample.row["language"]),
            "reason": reason.value,
        }
        return Scored(sample, columns, reason)

    def _score_readable(self, batch: EncodeBatch, found: Embeddings) -> list[Scored]:
        captions = [batch.texts[place] or "" for place in found.places]
        failures: dict[int, list[tuple[str, str]]] = {}

        def failed(i: int, head: Head, error: Exception) -> None:
            failures.setdefault(i, []).append((type(head).__name__, described(error)))

        scores = score_all(self.heads, HeadInput(found.images, captions, found.watermarks), failed)
        must_drop = self._must_drop(scores)
        outcomes = [
            self._outcome(
                batch.samples[place],
                float(found.similarities[i]),
                {name: values[i] for name, values in scores.items()},
                must_drop[i],
                (found.images[i], found.captions[i]),
            )
            for i, place in enumerate(found.places)
        ]
        for i, of_sample in failures.items():
            outcomes[i] = replace(outcomes[i], failures=tuple(of_sample))
        return outcomes

    def _must_drop(self, scores: Scores) -> list[bool | None]:
        """Take the values that are not stored out of the scores, and return whether each sample must go."""
        by_tag, suspected = scores.pop(MUST_DROP), scores.pop(SUSPECTED_UNDERAGE)
        limit = self.drop_punsafe
        if limit is None:
            return by_tag
        return [
            must if must is None else must or (suspect and punsafe >= limit)
            for must, suspect, punsafe in zip(by_tag, suspected, scores["punsafe"], strict=True)
        ]

    def _outcome(
        self,
        sample: Sample,
        similarity: float,
        scores: Row,
        must_drop: bool | None,  # None: its embedding is not finite
        embeddings: tuple[Floats, Floats],
    ) -> Scored:
        if must_drop is None or not is_scored((similarity, *scores.values())):
            drop_reason = ScoreReason.SUSPECTED_UNDERAGE if must_drop else ScoreReason.NOT_SCORED
            return self._without_scores(sample, drop_reason)
        language = sample.row["language"]
        threshold = self.thresholds.of(language)
        reason = None
        if must_drop:  # takes precedence over a low similarity
            reason = ScoreReason.SUSPECTED_UNDERAGE
        elif similarity < threshold:
            reason = ScoreReason.LOW_SIMILARITY
        columns = (
            _NO_SCORES
            | scores
            | {
                "similarity": similarity,
                "threshold": threshold,
                "subset": subset_of_language(language),
                "reason": reason.value if reason else None,
            }
        )
        return Scored(sample, columns, reason, *embeddings)


def load_scorer(settings: Settings) -> SampleScorer:
    """Everything scoring needs, from the settings; raises ModelError."""
    model = load_model(settings.clip)
    heads = load_heads(settings, model)
    watermark = watermark_model(heads)
    plans = (model.pixel_plan, *((watermark.plan,) if watermark else ()))
    limits = thresholds(settings.clip)
    warn_of_difference(model)
    if other := load_other_model(settings.clip, model):
        warn_of_difference(other)
    warn_of_other_thresholds(model.name, limits, other.name if other else "")
    return SampleScorer(
        model=model,
        multilingual_model=other,
        thresholds=limits,
        heads=heads,
        columns=own_columns(heads),
        drop_punsafe=settings.safety.drop_punsafe if settings.safety.nsfw_head else None,
        pixel_plans=tuple(
            replace(plan, max_pixels=settings.clip.max_pixels, scale_jpegs=settings.clip.jpeg_scaling)
            for plan in plans
        ),
    )


def load_other_model(settings: ClipSettings, model: ClipModel) -> ClipModel | None:
    """The model for other languages, if one is set.

    Raises ModelError unless it preprocesses images like the first one.
    """
    if not settings.other_model:
        return None
    function = {name: getattr(ClipSettings(), name) for name in KEYS}  # the settings are of the first model
    other = load_model(
        replace(settings, model=settings.other_model, pretrained=settings.other_pretrained, **function)
    )
    if other.pixel_plan != model.pixel_plan or other.dim != model.dim:
        raise ModelError(
            f"cannot use {other.name} for other languages: it has {other.pixel_plan.side} pixels a side and "
            f"{other.dim} numbers an embedding, {model.name} has {model.pixel_plan.side} and {model.dim}; "
            "set LAION_ETL_CLIP_OTHER_MODEL to a model that matches"
        )
    return other
