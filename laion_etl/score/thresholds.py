"""How similar caption and image must be: one threshold for English, one for all other languages.

LAION-5B, section 3.2: 0.28 for English with ViT-B/32, 0.26 for the rest with a multilingual text tower.
Those numbers belong to those models. The tiny model ships thresholds calibrated for its own weights; they
apply only while both settings have their defaults, so a threshold that is set explicitly always wins.
"""

import logging
from dataclasses import dataclass, fields

from laion_etl.core import paper_thresholds
from laion_etl.score import demo_model
from laion_etl.score.weights import is_tiny
from laion_etl.settings import ClipSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Cosine similarity below which a pair is dropped."""

    english: float
    other: float

    def of(self, language: str) -> float:
        """The threshold for a language code; '' (no reliable language) counts as other."""
        return self.english if language == "en" else self.other


def thresholds(settings: ClipSettings) -> Thresholds:
    """The thresholds in force for these settings."""
    if is_tiny(settings) and _at_defaults(settings):
        calibrated = demo_model.shipped_calibration()
        return Thresholds(calibrated.threshold_en, calibrated.threshold_other)
    return Thresholds(settings.threshold_en, settings.threshold_other)


def _at_defaults(settings: ClipSettings) -> bool:
    default = {field.name: field.default for field in fields(ClipSettings)}
    names = ("threshold_en", "threshold_other")
    return all(getattr(settings, name) == default[name] for name in names)


def warn_of_other_thresholds(model: str, found: Thresholds, other_model: str = "") -> None:
    """Log a warning for each model that is used with a threshold of the paper, but is not the paper's.

    Args:
        model: The name of the first one.
        found: The thresholds in force.
        other_model: The name of that of other languages, if there is one.
    """
    used: dict[str, list[str]] = {}
    others = [other_model] if other_model else []
    for threshold, name in paper_thresholds.of_other_models([found.english], [found.other], [model], others):
        used.setdefault(name, []).append(f"{threshold:g}")
    for name, values in used.items():
        _log.warning(
            "%s: %s chosen for OpenAI's ViT-B/32; this model has similarities in another range; score a "
            "few shards, run `laion-etl model calibrate`, and set LAION_ETL_CLIP_THRESHOLD_EN and "
            "LAION_ETL_CLIP_THRESHOLD_OTHER",
            name,
            f"the threshold {values[0]} was" if len(values) == 1 else f"{' and '.join(values)} were",
        )
