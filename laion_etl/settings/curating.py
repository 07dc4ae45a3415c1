"""Knobs of the stages that choose among the samples and give them out: score, publish, index."""

from dataclasses import dataclass

from laion_etl.settings.knob import knob


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """The CLIP model and its thresholds (LAION-5B section 3.2)."""

    model: str = knob(
        "ViT-B-32",
        "open_clip model name, hf-hub:ORGANISATION/NAME, local-dir:PATH, or 'laion-etl-tiny' (the demo's).",
    )
    pretrained: str = knob(
        "openai", "open_clip pretrained tag or a checkpoint file; the demo's weights are 'scenes'."
    )
    other_model: str = knob(
        "",
        "open_clip model of the pairs that are not English, for example xlm-roberta-base-ViT-B-32. "
        "Empty: the same model for all.",
    )
    other_pretrained: str = knob("", "Its pretrained tag or checkpoint file.")
    threshold_en: float = knob(
        0.28,
        "English pairs below this similarity are dropped. While both thresholds have their defaults, "
        "the demo's model uses the ones calibrated for its weights.",
    )
    threshold_other: float = knob(
        0.26, "Other pairs, and those without a language, below this similarity are dropped."
    )
    batch_size: int = knob(
        256, "Images per forward pass; on a CPU, how many are prepared before they are computed."
    )
    device: str = knob(
        "auto", "auto (all GPUs, else the CPU), cpu, cuda, or several: cuda:0,cuda:1; a process each."
    )
    precision: str = knob("auto", "auto (bf16 on GPUs, fp32 on CPUs), fp32, bf16 or fp16.")
    preparers: int = knob(
        0, "Processes that decode images and tokenise texts for the model; 0 means one per core."
    )
    threads: int = knob(
        0, "Threads that compute on a CPU; 0 means one per core. Their number changes no score."
    )
    max_pixels: int = knob(89_478_484, "Largest image decoded from a shard, pixels.")


@dataclass(frozen=True, slots=True)
class SafetySettings:
    """Tags for safety and beauty."""

    prompts: str = knob(
        "", "JSON file of zero-shot category prompts. Empty: the shipped set of the chosen model."
    )
    aesthetic_head: str = knob(
        "",
        "Aesthetic head (torch state dict of LAION's predictor v1 or v2) for the CLIP model; like all heads "
        "a path or path#sha256=HEX. Empty: the model's own, if any.",
    )
    nsfw_head: str = knob(
        "", "NSFW head (made by `laion-etl convert-head`): gives punsafe. Empty: by zero-shot categories."
    )
    violence_head: str = knob(
        "", "Two text embeddings (.npy): gives pviolence. Empty: by zero-shot categories."
    )
    watermark_model: str = knob(
        "",
        "Image model that gives pwatermark: LAION's watermark_model_v1.pt, a file of our own format, or "
        "module:factory. Empty: the demo model's own, else by zero-shot prompts where there are some.",
    )


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """The published dataset."""

    name: str = knob("laion", "Name of the dataset.")
    rows_per_file: int = knob(1_000_000, "Rows per parquet file.")
    high_resolution_px: int = knob(1024, "Both sides at least this: the high-resolution subset.")
    aesthetic_min: float = knob(5.0, "Aesthetic score of the aesthetic subset.")
    duplicates: str = knob(
        "keep",
        "Pairs that show the same picture: keep all (as the original did), or publish the best pair of "
        "those with equal files (exact), or with equal or nearly equal pictures (near).",
    )
    duplicate_bits: int = knob(
        10, "Bits of 256 in which PDQ hashes of nearly equal pictures differ, at most 15."
    )
    duplicates_of_earlier: bool = knob(
        False,
        "Look for them also among what this dataset has of earlier crawls; such pairs are left out, "
        "published versions stay as they are.",
    )
    subsets: tuple[tuple[str, str], ...] = knob(
        (),
        "Subsets of one's own, name = SQL condition over the published columns: a table [publish.subsets] in "
        "the file, here as TOML, `big-cats = \"TEXT ILIKE '%cat%' AND similarity > 0.3\"` "
        "(docs/formats.md).",
    )
    variants: tuple[str, ...] = knob(
        ("research",),
        "What is published: research (all that passed), research-safe (without what is tagged unsafe, as a "
        "dataset of its own, <name>-research-safe), or both, comma separated.",
    )
    safe_leaves_out: tuple[str, ...] = knob(
        ("NSFW",), "NSFW tags that are not in research-safe: NSFW, or NSFW,UNSURE; untagged rows never are."
    )
    safe_max_punsafe: float = knob(
        1.0, "Rows with a higher punsafe are not in research-safe; 1: punsafe does not matter."
    )
    contact: str = knob("", "Where people ask for removal, printed on the dataset card.")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The index of a published dataset that `laion-etl search` and `laion-etl explore` look into."""

    dtype: str = knob(
        "f16", "Numbers of the indexed vectors: f16, as they were scored, or i8: half the size, rounded."
    )
    connectivity: int = knob(16, "Neighbours of a vector in the graph: more finds better and takes memory.")
    expansion_add: int = knob(128, "Candidates looked at when a vector is added: more is slower and better.")
    expansion_search: int = knob(128, "Candidates looked at in a search: more is slower and finds more.")
    rows_per_part: int = knob(
        500_000,
        "Rows indexed together, whole batches, before anything was left out. A part is built in memory: "
        "about 1.2 kB a row with 512 f16 numbers.",
    )
    jobs: int = knob(2, "Parts built at the same time, each by one core and in memory of its own.")
    exact_rows: int = knob(
        10_000, "When a part has, or the filters leave of it, at most so many rows, each is compared."
    )
    pictures: bool = knob(
        True,
        "Note where the pictures lie in the tars, so that the page can show them. On S3 that fetches every "
        "tar once.",
    )
