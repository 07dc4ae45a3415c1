"""Settings of the publish stage."""

from dataclasses import dataclass

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """The published dataset."""

    name: str = setting("laion", "Name of the dataset.")
    rows_per_file: int = setting(1_000_000, "Rows per parquet file.")
    high_resolution_px: int = setting(1024, "Both sides at least this: the high-resolution subset.")
    aesthetic_min: float = setting(5.0, "Aesthetic score of the aesthetic subset.")
    duplicates: str = setting(
        "keep",
        "Pairs that show the same picture: keep all (as the original did), or publish the best pair of "
        "those with equal files (exact), or with equal or nearly equal pictures (near).",
    )
    duplicate_bits: int = setting(
        10, "Bits of 256 in which PDQ hashes of nearly equal pictures differ, at most 15."
    )
    duplicates_of_earlier: bool = setting(
        False,
        "Look for them also among what this dataset has of earlier crawls; such pairs are left out, "
        "published versions stay as they are.",
    )
    subsets: tuple[tuple[str, str], ...] = setting(
        (),
        "Subsets of one's own, name = SQL condition over the published columns: a table [publish.subsets] in "
        "the file, here as TOML, `big-cats = \"TEXT ILIKE '%cat%' AND similarity > 0.3\"` "
        "(docs/formats.md).",
    )
    variants: tuple[str, ...] = setting(
        ("research",),
        "What is published: research (all that passed), research-safe (without what is tagged unsafe, as a "
        "dataset of its own, <name>-research-safe), or both, comma separated.",
    )
    safe_leaves_out: tuple[str, ...] = setting(
        ("NSFW",), "NSFW tags that are not in research-safe: NSFW, or NSFW,UNSURE; untagged rows never are."
    )
    safe_max_punsafe: float = setting(
        1.0, "Rows with a higher punsafe are not in research-safe; 1: punsafe does not matter."
    )
    contact: str = setting("", "Where people ask for removal, printed on the dataset card.")
