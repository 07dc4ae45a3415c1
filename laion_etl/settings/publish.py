"""Settings of the publish stage."""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import not_empty, pattern, table_names
from laion_etl.settings.fields import Group, Stage, setting

# Folders of a version that are not subsets of one's own; tests compare with dataset/subsets.py.
TAKEN_NAMES = frozenset(
    {
        "laion-en",
        "laion-multi",
        "laion-nolang",
        "laion-high-resolution",
        "laion-aesthetic",
        "report",
        "index",
    }
)
MAX_DUPLICATE_BITS = 15  # up to which the index of PDQ hashes finds every pair


def _leaves_nsfw_out(tags: tuple[str, ...]) -> str:
    return "" if "NSFW" in tags else "research-safe always leaves NSFW out; use NSFW or NSFW,UNSURE"


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
    high_resolution_px: int = setting(
        1024,
        "Both sides at least this: the high-resolution subset.",
        changes=Stage.PUBLISH,
        unit="px",
        minimum=0,
    )
    aesthetic_min: float = setting(
        5.0,
        "Aesthetic score of the aesthetic subset.",
        changes=Stage.PUBLISH,
        unit="score",
        minimum=-100,
        maximum=100,
    )
    duplicates: str = setting(
        "keep",
        "Pairs that show the same image: keep all (as the original did), or publish the best pair of "
        "those with equal files (exact), or with equal or nearly equal images (near).",
        changes=Stage.PUBLISH,
        choices=("keep", "exact", "near"),
    )
    duplicate_bits: int = setting(
        10,
        "Bits of 256 in which PDQ hashes of nearly equal images differ.",
        changes=Stage.PUBLISH,
        unit="bits",
        minimum=0,
        maximum=MAX_DUPLICATE_BITS,
    )
    duplicates_of_earlier: bool = setting(
        False,
        "Look for them also among what this dataset has of earlier crawls; such pairs are left out, "
        "published versions stay as they are.",
        changes=Stage.PUBLISH,
    )
    subsets: tuple[tuple[str, str], ...] = setting(
        (),
        "Subsets of one's own, name = SQL condition over the published columns: a table [publish.subsets] in "
        "the file, here as TOML, `big-cats = \"TEXT ILIKE '%cat%' AND similarity > 0.3\"` "
        "(docs/formats.md).",
        changes=Stage.PUBLISH,
        check=table_names(r"[a-z0-9][a-z0-9-]{0,63}", TAKEN_NAMES),
    )
    variants: tuple[str, ...] = setting(
        ("research",),
        "What is published: research (all that passed), research-safe (without what is tagged unsafe, as a "
        "dataset of its own, <name>-research-safe), or both.",
        changes=None,  # each variant is a dataset of its own, with its name in fingerprint and manifest
        choices=("research", "research-safe"),
        check=not_empty,
    )
    safe_leaves_out: tuple[str, ...] = setting(
        ("NSFW",),
        "NSFW tags that are not in research-safe: NSFW, or NSFW,UNSURE; untagged rows never are.",
        changes=Stage.PUBLISH,
        choices=("NSFW", "UNSURE"),
        check=_leaves_nsfw_out,
    )
    safe_max_punsafe: float = setting(
        1.0,
        "Rows with a higher punsafe are not in research-safe; 1: punsafe does not matter.",
        changes=Stage.PUBLISH,
        unit="probability",
        minimum=0,
        maximum=1,
    )
    contact: str = setting(
        "", "Where people ask for removal, printed on the dataset card.", changes=Stage.PUBLISH
    )
