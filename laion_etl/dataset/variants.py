"""Variants of a dataset, as in Re-LAION-5B: research (all rows that passed) and research-safe.

Suspected illegal content is in neither: scoring drops it before publishing, and blocklists and removal
requests apply to both. research-safe is a separate dataset, without rows that are tagged unsafe or were not
checked: rows without a tag, and rows whose punsafe is missing or NaN.
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
_UNSAFE_REASONS = frozenset(
    {ScoreReason.SUSPECTED_UNDERAGE.value, ScoreReason.NOT_SCORED.value, NOT_TAGGED, PUNSAFE}
)


def is_unsafe(reason: str) -> bool:
    """Whether a row was dropped for safety: by a blocklist, by scoring, or from research-safe.

    So is a row that could not be checked.
    """
    return reason.startswith(("blocked_", "tagged_")) or reason in _UNSAFE_REASONS


def dataset_name(name: str, variant: str) -> str:
    """Return the dataset name of a variant. Raises SettingsError for an unknown variant."""
    if variant not in VARIANTS:
        raise SettingsError(
            f"cannot use LAION_ETL_PUBLISH_VARIANTS: unknown variant {variant!r}; choose from "
            f"{', '.join(VARIANTS)}"
        )
    return name if variant == RESEARCH else f"{name}-{variant}"


def unsafe_reasons(rows: pa.RecordBatch, settings: PublishSettings) -> pa.Array:
    """Return why each scored row is left out of research-safe; null for rows that are in it."""
    tag, punsafe = rows.column("nsfw_tag"), rows.column("punsafe")
    reasons = pc.if_else(pc.fill_null(pc.greater(punsafe, settings.safe_max_punsafe), False), PUNSAFE, None)
    for name in settings.safe_leaves_out:
        reasons = pc.if_else(pc.fill_null(pc.equal(tag, name), False), f"tagged_{name.lower()}", reasons)
    unchecked = pc.or_(pc.is_null(tag), pc.is_null(punsafe, nan_is_null=True))
    return pc.if_else(unchecked, NOT_TAGGED, reasons).cast(pa.string())
