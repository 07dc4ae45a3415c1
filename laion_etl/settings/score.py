"""Settings of the score stage: the CLIP model and what judges safety."""

from dataclasses import dataclass

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """The CLIP model and its thresholds (LAION-5B section 3.2)."""

    model: str = setting(
        "ViT-B-32",
        "open_clip model name, hf-hub:ORGANISATION/NAME, local-dir:PATH, or 'laion-etl-tiny' (the demo's).",
    )
    pretrained: str = setting(
        "openai", "open_clip pretrained tag or a checkpoint file; the demo's weights are 'scenes'."
    )
    other_model: str = setting(
        "",
        "open_clip model of the pairs that are not English, for example xlm-roberta-base-ViT-B-32. "
        "Empty: the same model for all.",
    )
    other_pretrained: str = setting("", "Its pretrained tag or checkpoint file.")
    threshold_en: float = setting(
        0.28,
        "English pairs below this similarity are dropped. While both thresholds have their defaults, "
        "the demo's model uses the ones calibrated for its weights.",
    )
    threshold_other: float = setting(
        0.26, "Other pairs, and those without a language, below this similarity are dropped."
    )
    batch_size: int = setting(256, "Images per forward pass.")
    device: str = setting(
        "auto", "auto (all GPUs, else the CPU), cpu, cuda, or several: cuda:0,cuda:1; a process each."
    )
    precision: str = setting("auto", "auto (bf16 on GPUs, fp32 on CPUs), fp32, bf16 or fp16.")
    preparers: int = setting(
        0, "Processes that decode images and tokenise texts for the model; 0 means one per core."
    )
    max_pixels: int = setting(89_478_484, "Largest image decoded from a shard, pixels.")


@dataclass(frozen=True, slots=True)
class SafetySettings:
    """Tags for safety and beauty."""

    prompts: str = setting(
        "", "JSON file of zero-shot category prompts. Empty: the shipped set of the chosen model."
    )
    aesthetic_head: str = setting(
        "",
        "Aesthetic head (torch state dict of LAION's predictor v1 or v2) for the CLIP model; like all heads "
        "a path or path#sha256=HEX. Empty: the model's own, if any.",
    )
    nsfw_head: str = setting(
        "", "NSFW head (made by `laion-etl convert-head`): gives punsafe. Empty: by zero-shot categories."
    )
    violence_head: str = setting(
        "", "Two text embeddings (.npy): gives pviolence. Empty: by zero-shot categories."
    )
    watermark_model: str = setting(
        "",
        "Image model that gives pwatermark: LAION's watermark_model_v1.pt, a file of our own format, or "
        "module:factory. Empty: the demo model's own, else by zero-shot prompts where there are some.",
    )
