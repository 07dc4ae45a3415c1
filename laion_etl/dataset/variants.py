"""Variants of a dataset, as Re-LAION-5B has them: research, all that passed, and research-safe.

What is suspected to be illegal is in neither: scoring drops it before there is anything to publish, and
blocklists and removal requests hold for both. research-safe is a dataset of its own, without what is
tagged unsafe, and without what nobody tagged.
"""

import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import SettingsError
from laion_etl.core.funnel import PublishReason, ScoreReason
from laion_etl.settings import PublishSettings

RESEARCH = "research"
RESEARCH_SAFE = "research-safe"
VARIANTS = (RESEARCH, RESEARCH_SAFE)

NOT_TAGGED = PublishReason.NOT_CHECKED_FOR_SAFETY.value
PUNSAFE = PublishReason.PUNSAFE_OVER_LIMIT.value
_UNSAFE_REASONS = frozenset({ScoreReason.SUSPECTED_UNDERAGE.value, NOT_TAGGED, PUNSAFE})


def is_unsafe(reason: str) -> bool:
    """Whether a row was dropped for safety: by a blocklist, by scoring, or from research-safe."""
    return reason.startswith(("blocked_", "tagged_")) or reason in _UNSAFE_REASONS


def dataset_name(name: str, variant: str) -> str:
    """The dataset of a variant; raises SettingsError for one that does not exist."""
    if variant not in VARIANTS:
        raise SettingsError(f"LAION_ETL_PUBLISH_VARIANTS: {variant!r} is none of {', '.join(VARIANTS)}")
    return name if variant == RESEARCH else f"{name}-{variant}"


def unsafe_reasons(rows: pa.RecordBatch, settings: PublishSettings) -> pa.Array:
    """Why a scored row is not in research-safe, per row; null where it is."""
    tag, punsafe = rows.column("nsfw_tag"), rows.column("punsafe")
    reasons = pc.if_else(pc.fill_null(pc.greater(punsafe, settings.safe_max_punsafe), False), PUNSAFE, None)
    for name in settings.safe_leaves_out:
        reasons = pc.if_else(pc.fill_null(pc.equal(tag, name), False), f"tagged_{name.lower()}", reasons)
    return pc.if_else(pc.is_null(tag), NOT_TAGGED, reasons).cast(pa.string())
