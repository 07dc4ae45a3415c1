"""Settings of the score stage: the CLIP model, safety tags and heads."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import each, factory, not_empty, pattern, rgb
from laion_etl.settings.fields import Group, Stage, setting

MAX_PIXELS = 89_478_484  # the original's limit: Pillow's, below which it does not warn


@dataclass(frozen=True, slots=True)
class ClipSettings(Group):
    """The CLIP model and its thresholds (LAION-5B section 3.2)."""

    GROUP: ClassVar[str] = "clip"

    model: str = setting(
        "ViT-B-32",
        "open_clip model name, hf-hub:ORGANISATION/NAME, local-dir:PATH, or 'laion-etl-tiny' (of the demo).",
        changes=Stage.SCORE,
        check=not_empty,
    )
    pretrained: str = setting(
        "openai",
        "open_clip pretrained tag or a checkpoint file; 'scenes' for the demo's model.",
        changes=Stage.SCORE,
    )
    quick_gelu: str = setting(
        "auto",
        "Whether the weights of `pretrained` need QuickGELU, as OpenAI's do; auto: as their tag or what is "
        "known of the file says (docs/how-to/models.md).",
        changes=Stage.SCORE,
        choices=("auto", "yes", "no"),
    )
    mean: tuple[float, ...] = setting(
        (),
        "Mean of red, green and blue that the weights were made for, like 0.5,0.5,0.5. Empty: as quick_gelu.",
        changes=Stage.SCORE,
        minimum=0,
        maximum=1,
        check=rgb,
    )
    std: tuple[float, ...] = setting(
        (),
        "Deviation of red, green and blue that the weights were made for. Empty: as quick_gelu.",
        changes=Stage.SCORE,
        minimum=0.001,
        maximum=1,
        check=rgb,
    )
    resize_mode: str = setting(
        "auto",
        "How images become square: the shortest side is scaled and the middle cut out, or squash; auto: as "
        "quick_gelu.",
        changes=Stage.SCORE,
        choices=("auto", "shortest", "squash"),
    )
    interpolation: str = setting(
        "auto",
        "Interpolation of the resize that the weights were made for; auto: as quick_gelu.",
        changes=Stage.SCORE,
        choices=("auto", "bicubic", "bilinear"),
    )
    jpeg_scaling: bool = setting(
        True,
        "Scale large JPEGs by a power of two while decoding, to no less than twice the input size. False: "
        "decode all at full size, as the original; costs CPU (docs/accuracy.md has the difference).",
        changes=Stage.SCORE,
        unnamed_default=True,
    )
    other_model: str = setting(
        "",
        "open_clip model for pairs that are not English, for example xlm-roberta-base-ViT-B-32. "
        "Empty: the same model for all.",
        changes=Stage.SCORE,
    )
    other_pretrained: str = setting(
        "", "Pretrained tag or checkpoint file of other_model.", changes=Stage.SCORE
    )
    threshold_en: float = setting(
        0.28,
        "English pairs below this similarity are dropped. If both thresholds have their defaults, the demo's "
        "model uses those calibrated for its weights.",
        changes=Stage.SCORE,
        unit="cosine",
        minimum=-1,
        maximum=1,
    )
    threshold_other: float = setting(
        0.26,
        "Other pairs, and those without a language, below this similarity are dropped.",
        changes=Stage.SCORE,
        unit="cosine",
        minimum=-1,
        maximum=1,
    )
    batch_size: int = setting(
        256,
        "Images per forward pass; on a CPU, images preprocessed before each round of computing.",
        changes=None,
        unit="images",
        minimum=1,
        maximum=65_536,
    )
    device: str = setting(
        "auto",
        "auto (all GPUs, else the CPU), cpu, cuda, or several devices, one process each: cuda:0,cuda:1.",
        changes=None,
        check=pattern(r"auto|[a-z]+(:\d+)?(\s*,\s*[a-z]+(:\d+)?)*", "auto, cpu, cuda or cuda:0,cuda:1"),
    )
    precision: str = setting(
        "auto",
        "Precision of the model; auto: bf16 on GPUs, fp32 on CPUs.",
        changes=Stage.SCORE,
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    preparers: int = setting(
        0,
        "Processes that decode images and tokenise captions for the model; 0 means one per core.",
        changes=None,
        unit="processes",
        minimum=0,
        maximum=1_024,
    )
    threads: int = setting(
        0,
        "Threads that compute on a CPU; 0 means one per core. Their number does not change scores.",
        changes=None,
        unit="threads",
        minimum=0,
        maximum=1_024,
    )
    max_pixels: int = setting(
        MAX_PIXELS, "Largest image decoded from a shard.", changes=Stage.SCORE, unit="px", minimum=1
    )


@dataclass(frozen=True, slots=True)
class SafetySettings(Group):
    """Safety tags and aesthetic scores."""

    GROUP: ClassVar[str] = "safety"

    prompts: str = setting(
        "",
        "JSON file of zero-shot category prompts. Empty: the shipped set of the chosen model.",
        changes=Stage.SCORE,
    )
    aesthetic_head: str = setting(
        "",
        "Aesthetic head for the CLIP model (torch state dict of LAION's predictor v1 or v2), as a path or "
        "path#sha256=HEX like all heads. Empty: the model's own, if any.",
        changes=Stage.SCORE,
    )
    nsfw_head: str = setting(
        "",
        "NSFW head (made by `laion-etl model convert-head`) for punsafe. Empty: by zero-shot categories.",
        changes=Stage.SCORE,
    )
    drop_punsafe: float = setting(
        0.5,
        "With an NSFW head: samples suspected under age are dropped from this punsafe on, whatever the tag.",
        changes=Stage.SCORE,
        unit="probability",
        minimum=0,
        maximum=1,
    )
    violence_head: str = setting(
        "",
        "Two text embeddings (.npy) for pviolence. Empty: by zero-shot categories.",
        changes=Stage.SCORE,
    )
    heads: tuple[str, ...] = setting(
        (),
        "Custom heads, as module:factory: each adds columns to scored shards and dataset (docs/library.md).",
        changes=Stage.SCORE,
        or_factory=True,
        check=each(factory),
    )
    watermark_model: str = setting(
        "",
        "Image model for pwatermark: LAION's watermark_model_v1.pt, a file of our own format, or "
        "module:factory. Empty: the demo model's own, else by zero-shot prompts if there are any.",
        changes=Stage.SCORE,
        or_factory=True,
    )
