"""Settings of the publish stage."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import each, not_empty, pattern, table_names
from laion_etl.settings.fields import Group, Stage, setting

# Folder names of a version that custom subsets must not use; tests compare them with dataset/subsets.py.
TAKEN_NAMES = frozenset(
    {
        "default",  # the name of all data in Hugging Face's cards
        "laion-en",
        "laion-multi",
        "laion-nolang",
        "laion-high-resolution",
        "laion-aesthetic",
        "report",
        "samples",
        "index",
    }
)
MAX_RANGES = 1_024  # Airflow's default [core] max_map_length
MAX_DUPLICATE_BITS = 15  # up to this distance the index of PDQ hashes finds every pair


def _leaves_nsfw_out(tags: tuple[str, ...]) -> str:
    return "" if "NSFW" in tags else "research-safe always excludes NSFW; use NSFW or NSFW,UNSURE"


@dataclass(frozen=True, slots=True)
class PublishSettings(Group):
    """The published dataset."""

    GROUP: ClassVar[str] = "publish"

    name: str = setting(
        "laion",
        "Name of the dataset.",
        changes=Stage.PUBLISH,
        check=pattern(
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", "letters, digits, dots, dashes and underscores, at most 80"
        ),
    )
    rows_per_file: int = setting(
        1_000_000, "Rows per parquet file.", changes=Stage.PUBLISH, unit="rows", minimum=1
    )
    batches_per_range: int = setting(
        5_000,
        "A crawl with more batches is published in ranges of so many, by tasks that run side by side, at "
        f"most {MAX_RANGES:,} of them. Only decides where files are cut.",
        changes=None,  # rows, statistics and numbers are those of one range
        unit="batches",
        minimum=1,
    )
    costs: bool = setting(
        False,
        "Show on card and report what the crawl has cost so far, by stage. Such a card changes each time the "
        "version is published again.",
        changes=Stage.PUBLISH,
        unnamed_default=True,
    )
    reshard: int = setting(
        0,
        "Also join the published samples of consecutive scored shards, images included, into tars of so "
        "many, with their rows and embeddings (docs/formats.md); 0: do not.",
        changes=Stage.PUBLISH,
        unit="samples",
        minimum=0,
        unnamed_default=True,
    )
    high_resolution_px: int = setting(
        1024,
        "Images with both sides at least this long form the high-resolution subset.",
        changes=Stage.PUBLISH,
        unit="px",
        minimum=0,
    )
    aesthetic_min: float = setting(
        5.0,
        "Lowest aesthetic score of the aesthetic subset.",
        changes=Stage.PUBLISH,
        unit="score",
        minimum=-100,
        maximum=100,
    )
    duplicates: str = setting(
        "keep",
        "Pairs with the same image: keep all (as the original did), or publish only the best pair of those "
        "with equal files (exact), or with equal or nearly equal images (near).",
        changes=Stage.PUBLISH,
        choices=("keep", "exact", "near"),
    )
    duplicate_bits: int = setting(
        10,
        "Most bits of 256 in which PDQ hashes of nearly equal images differ.",
        changes=Stage.PUBLISH,
        unit="bits",
        minimum=0,
        maximum=MAX_DUPLICATE_BITS,
    )
    duplicates_of_earlier: bool = setting(
        False,
        "Also look for duplicates among this dataset's earlier crawls; such pairs of the new crawl are left "
        "out, published versions stay as they are.",
        changes=Stage.PUBLISH,
    )
    semantic_duplicates: float = setting(
        0.0,
        "Also publish only the best pair of those of a crawl whose images' CLIP embeddings have at least "
        "this cosine, as SemDeDup does (docs/how-to/duplicates.md); 0: do not look for them.",
        changes=Stage.PUBLISH,
        unit="cosine",
        minimum=0,
        maximum=1,
        unnamed_default=True,
    )
    evaluation_sets: tuple[str, ...] = setting(
        (),
        "Leave out samples near an image of these evaluation sets, which `laion-etl dataset evaluation-set` "
        "has put into the store under their names.",
        changes=Stage.PUBLISH,
        check=each(
            pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", "letters, digits, dots, dashes and underscores")
        ),
        unnamed_default=True,
    )
    evaluation_cosine: float = setting(
        0.95,
        "Least cosine of CLIP embeddings of a sample's image and an image of an evaluation set that leaves "
        "the sample out.",
        changes=Stage.PUBLISH,
        unit="cosine",
        minimum=0,
        maximum=1,
        unnamed_default=True,
    )
    subsets: tuple[tuple[str, str], ...] = setting(
        (),
        "Custom subsets, name = SQL condition over the published columns: a table [publish.subsets] in the "
        "file, here as TOML, `big-cats = \"TEXT ILIKE '%cat%' AND similarity > 0.3\"` "
        "(docs/formats.md).",
        changes=Stage.PUBLISH,
        check=table_names(r"[a-z0-9][a-z0-9-]{0,63}", TAKEN_NAMES),
    )
    variants: tuple[str, ...] = setting(
        ("research",),
        "Datasets that are published: research (all that passed), research-safe (without samples tagged "
        "unsafe, as a separate dataset <name>-research-safe), or both.",
        changes=None,  # each variant is a separate dataset, with its name in fingerprint and manifest
        choices=("research", "research-safe"),
        check=not_empty,
    )
    safe_leaves_out: tuple[str, ...] = setting(
        ("NSFW",),
        "NSFW tags excluded from research-safe: NSFW, or NSFW,UNSURE; untagged rows are always excluded.",
        changes=Stage.PUBLISH,
        choices=("NSFW", "UNSURE"),
        check=_leaves_nsfw_out,
    )
    safe_max_punsafe: float = setting(
        1.0,
        "Rows with a higher punsafe are excluded from research-safe, as are those without one; 1: no limit.",
        changes=Stage.PUBLISH,
        unit="probability",
        minimum=0,
        maximum=1,
    )
    contact: str = setting(
        "", "Contact for removal requests, printed on the dataset card.", changes=Stage.PUBLISH
    )

    @property
    def looks_for_duplicates(self) -> bool:
        """Whether ranges have to hash their images before the first is published."""
        return self.duplicates != "keep" or self.semantic_duplicates > 0

    @property
    def compares_ranges(self) -> bool:
        """Whether the images of all ranges have to be compared before the first is published."""
        return self.duplicates == "near" or self.semantic_duplicates > 0
