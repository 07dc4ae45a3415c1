"""All heads of a scorer, in the order in which they score: the built-in ones, then those of the settings.

A later head replaces a column of an earlier one: safety prompts fill `punsafe`, `pviolence` and `pwatermark`
unless a head or model for them is set. A new built-in head is a function here, in `BUILT_IN`, and a setting;
its column travels to the dataset as those of custom heads do.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from laion_etl.core.errors import SettingsError
from laion_etl.core.head_columns import HeadColumn
from laion_etl.core.import_factory import load_factory
from laion_etl.core.schemas import DATASET_SCHEMA, SCORED_SCHEMA
from laion_etl.core.user_paths import user_path
from laion_etl.score import demo_model
from laion_etl.score.head import Floats, Head, HeadInput
from laion_etl.score.head_probe import check_head
from laion_etl.score.heads import LinearHead, TextAnchors, checked_file, load_anchors, load_head
from laion_etl.score.layer_chain import LayerChain
from laion_etl.score.model import ClipModel
from laion_etl.score.nsfw_head import DenseHead, NsfwChain, load_nsfw_head
from laion_etl.score.safety import NOT_STORED, PROMPTS, SafetyJudge, Suspects, load_prompts
from laion_etl.score.watermark import WatermarkModel, load_watermark_model, read_watermark_model
from laion_etl.settings import SafetySettings, Settings

VARIABLE = "LAION_ETL_SAFETY_HEADS"
_Checked = TypeVar("_Checked", LinearHead | LayerChain, TextAnchors)
_INDEX_COLUMNS = ("domain", "picture_ending", "picture_offset", "picture_bytes", "score")
_TAKEN = frozenset(name.lower() for name in (*SCORED_SCHEMA.names, *DATASET_SCHEMA.names, *_INDEX_COLUMNS))


@dataclass(frozen=True, slots=True)
class EmbeddingHead:
    """A small model of the image embedding, as a head of one column."""

    columns: tuple[HeadColumn, ...]
    model: LinearHead | LayerChain | DenseHead | NsfwChain | TextAnchors

    @property
    def identity(self) -> str:
        return self.model.identity

    def score(self, samples: HeadInput) -> Floats:
        return self.model.score(samples.images)


@dataclass(frozen=True, slots=True)
class WatermarkHead:
    """A watermark model as a head; it reads pixels, on the device, before heads are called."""

    model: WatermarkModel
    columns: tuple[HeadColumn, ...] = (HeadColumn("pwatermark", "probability of a watermark"),)

    @property
    def identity(self) -> str:
        return self.model.identity

    def score(self, samples: HeadInput) -> dict[str, Floats | None]:
        return {"pwatermark": samples.watermarks}


def load_heads(settings: Settings, model: ClipModel) -> tuple[Head, ...]:
    """Return all heads; raises ModelError for a file that cannot be used, SettingsError for a factory."""
    built_in = (load(settings, model) for load in BUILT_IN)
    return (*(head for head in built_in if head is not None), *load_custom_heads(settings, model))


def own_columns(heads: Sequence[Head]) -> tuple[HeadColumn, ...]:
    """Return the columns that SCORED_SCHEMA does not have, each with the identity of its head."""
    return tuple(
        replace(column, head=head.identity)
        for head in heads
        for column in head.columns
        if column.name not in SCORED_SCHEMA.names and column.name not in NOT_STORED
    )


def described_safety(heads: Sequence[Head]) -> dict[str, Any]:
    """Return what the tags and `punsafe` come from: for stats, card and evaluations."""
    found: dict[str, Any] = {}
    for head in heads:
        if isinstance(head, SafetyJudge):
            found["prompts"] = {**asdict(head.origin), "identity": head.identity}
        elif any(column.name == "punsafe" for column in head.columns):
            found["nsfw_head"] = head.identity
    return found


def watermark_model(heads: Sequence[Head]) -> WatermarkModel | None:
    """Return the model of the watermark head, None if there is no such head."""
    return next((head.model for head in heads if isinstance(head, WatermarkHead)), None)


def load_custom_heads(settings: Settings, model: ClipModel) -> tuple[Head, ...]:
    """Return the heads that LAION_ETL_SAFETY_HEADS names. Raises SettingsError for one that cannot be used.

    Each factory is called with the settings of safety and the CLIP model.
    """
    heads, names = [], set(_TAKEN)
    for named in settings.safety.heads:
        head = load_factory(named, VARIABLE, "a Head")(settings.safety, model)
        if problem := _problem(head, names):
            raise SettingsError(
                f"cannot use {VARIABLE}={named!r}: {problem}; return a Head (docs/library.md)"
            )
        names.update(column.name for column in head.columns)
        heads.append(head)
    return tuple(heads)


def _problem(head: Any, taken: set[str]) -> str:
    columns, identity = (getattr(head, name, None) for name in ("columns", "identity"))
    if not callable(getattr(head, "score", None)):
        return "the factory returned an object without the method score(samples)"
    if not isinstance(columns, (tuple, list)) or not columns or not _all_columns(columns):
        return "its `columns` are not a tuple of HeadColumn"
    if not isinstance(identity, str) or not identity:
        return "its `identity` is not a name"
    names = [column.name for column in columns]
    if repeated := [name for name in names if name in taken or names.count(name) > 1]:
        return f"there is a column {repeated[0]!r} already"
    return ""


def _all_columns(columns: Any) -> bool:
    return all(isinstance(column, HeadColumn) for column in columns)


def _safety(settings: Settings, model: ClipModel) -> Head:
    """Zero-shot tags, and probabilities where the prompts have contrasts for them."""
    # A trained head may drop suspects whatever their tag.
    suspects = Suspects.ALL if settings.safety.nsfw_head else Suspects.BY_TAG
    return SafetyJudge(model, load_prompts(_prompts_file(settings.safety, model)), suspects)


def _prompts_file(safety: SafetySettings, model: ClipModel) -> Path:
    if safety.prompts:
        return user_path(safety.prompts)
    return PROMPTS / (f"{demo_model.NAME}.json" if model.is_tiny else "clip.json")


def _nsfw(settings: Settings, model: ClipModel) -> Head | None:
    if not (named := settings.safety.nsfw_head):
        return None
    column = HeadColumn("punsafe", "probability that the image is unsafe")
    head = load_nsfw_head(checked_file(named), model.dim)
    check_head(head.chain.score if isinstance(head, NsfwChain) else head.logits, named, model.dim)
    return EmbeddingHead((column,), head)


def _violence(settings: Settings, model: ClipModel) -> Head | None:
    if not (named := settings.safety.violence_head):
        return None
    column = HeadColumn("pviolence", "probability of violence")
    return EmbeddingHead((column,), _checked(load_anchors(checked_file(named), model.dim), named, model.dim))


def _watermark(settings: Settings, model: ClipModel) -> Head | None:
    """The model of the settings, else the tiny model's own, else None: prompts may fill `pwatermark`."""
    if settings.safety.watermark_model:
        return WatermarkHead(load_watermark_model(settings, model.device))
    if not model.is_tiny:
        return None
    return WatermarkHead(read_watermark_model(demo_model.WATERMARK_FILE, model.device, settings.clip.threads))


def _aesthetic(settings: Settings, model: ClipModel) -> Head | None:
    """The head of the settings, else the tiny model's own, else None."""
    column = HeadColumn("aesthetic", "aesthetic score, about 1 to 10")
    if named := settings.safety.aesthetic_head:
        return EmbeddingHead((column,), _checked(load_head(checked_file(named), model.dim), named, model.dim))
    if not model.is_tiny:
        return None
    return EmbeddingHead((column,), load_head(demo_model.AESTHETIC_FILE, model.dim))


def _checked(head: _Checked, named: str, dim: int) -> _Checked:
    check_head(head.score, named, dim)
    return head


BUILT_IN: tuple[Callable[[Settings, ClipModel], Head | None], ...] = (
    _safety,
    _nsfw,
    _violence,
    _watermark,
    _aesthetic,
)
