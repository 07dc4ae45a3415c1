"""Settings of the parse stage."""

from dataclasses import dataclass
from typing import Any, ClassVar

from laion_etl.core.caption_source import CaptionSource
from laion_etl.settings.checks import each, factory, place
from laion_etl.settings.fields import Group, Stage, setting

# The original's rules: what it kept is kept, except what is dropped for safety (private hosts, blocklists).
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "laion5b": {
        "refuse_trackers": False,
        "refuse_placeholder_words": False,
        "refuse_placeholder_file_names": False,
        "refuse_placeholder_hashes": False,
        "refuse_placeholder_dates": False,
        "max_text_repeats": 0,
        "count_wide_as_two": False,
    },
}
_a_list = each(place("s3", "https", "http", "file"))


def _with_alt(sources: tuple[str, ...]) -> str:
    return "" if "alt" in sources else "alt is missing; the other sources only add to it, so name it, too"


@dataclass(frozen=True, slots=True)
class ParseSettings(Group):
    """Rules for links and captions (LAION-5B section 3, and the original's code)."""

    GROUP: ClassVar[str] = "parse"
    ASCENDING: ClassVar[tuple[tuple[str, str], ...]] = (
        ("min_alt_chars", "max_alt_chars"),
        ("language_min_bytes", "language_max_bytes"),
    )

    preset: str = setting(
        "default",
        "Defaults of this group: default, or laion5b for the original's rules without our additions.",
        changes=None,  # the settings it stands for do
        choices=tuple(PRESETS),
    )
    source: str = setting(
        "wat",
        "Where links are read from: wat (Common Crawl's WAT files), warc (pages in WARC files, of Common "
        "Crawl or those of a folder), or module:factory (docs/library.md).",
        changes=Stage.PARSE,
        choices=("wat", "warc"),
        or_factory=True,
    )
    captions: tuple[str, ...] = setting(
        ("alt",),
        "Where captions come from: alt, and any of title, figcaption (WARC), link, og (docs/formats.md).",
        changes=Stage.PARSE,
        choices=tuple(source.value for source in CaptionSource),
        check=_with_alt,
        unnamed_default=True,
    )
    min_alt_chars: int = setting(
        5, "Shortest caption kept.", changes=Stage.PARSE, unit="characters", minimum=0
    )
    count_wide_as_two: bool = setting(
        True,
        "Count wide East Asian characters (UAX 11) as two towards min_alt_chars: words have two or three.",
        changes=Stage.PARSE,
    )
    max_alt_chars: int = setting(
        2000, "Captions are cut after this.", changes=Stage.PARSE, unit="characters", minimum=1
    )
    max_url_chars: int = setting(2000, "Longest URL kept.", changes=Stage.PARSE, unit="characters", minimum=1)
    max_host_chars: int = setting(
        60, "Longest host name kept.", changes=Stage.PARSE, unit="characters", minimum=1
    )
    refused_extensions: tuple[str, ...] = setting(
        (".svg", ".gif"), "Links whose URL path ends so are dropped.", changes=Stage.PARSE
    )
    language_detector: str = setting(
        "cld3",
        "Language detector: cld3 (the original's), py3langid (better on short texts), none, module:factory.",
        changes=Stage.PARSE,
        choices=("cld3", "py3langid", "none"),
        or_factory=True,
    )
    refuse_trackers: bool = setting(True, "Drop tracking pixels, by host and file name.", changes=Stage.PARSE)
    refuse_placeholder_words: bool = setting(
        True, 'Drop captions such as "image", "logo" or "no photo".', changes=Stage.PARSE
    )
    refuse_placeholder_file_names: bool = setting(
        True, 'Drop captions such as "IMG_1234.JPG".', changes=Stage.PARSE
    )
    refuse_placeholder_hashes: bool = setting(
        True, "Drop captions that are a hash, a UUID or another identifier.", changes=Stage.PARSE
    )
    refuse_placeholder_dates: bool = setting(
        True, "Drop captions that consist of numbers, dates and times only.", changes=Stage.PARSE
    )
    max_text_repeats: int = setting(
        100,
        "Most pairs with the same caption kept per WAT file (boilerplate); 0 keeps all.",
        changes=Stage.PARSE,
        unit="pairs",
        minimum=0,
    )
    dedupe_pairs: int = setting(
        1_000_000,
        "Pairs remembered to find duplicates within a partition, up to 48 bytes each; beyond this number the "
        "oldest are forgotten, and Postgres finds the remaining duplicates.",
        changes=Stage.PARSE,
        unit="pairs",
        minimum=0,
    )
    blocked_domains: tuple[str, ...] = setting(
        (),
        "Lists of domains whose links are dropped: paths, s3:// or https:// (docs/blocklists.md).",
        changes=Stage.PARSE,
        by_content=True,
        check=_a_list,
    )
    blocked_urls: tuple[str, ...] = setting(
        (),
        "Lists of URLs, and folders of URLs, that are dropped.",
        changes=Stage.PARSE,
        by_content=True,
        check=_a_list,
    )
    blocked_url_patterns: tuple[str, ...] = setting(
        (),
        "Lists of RE2 expressions; URLs that match one are dropped.",
        changes=Stage.PARSE,
        by_content=True,
        check=_a_list,
    )
    blocked_pairs: tuple[str, ...] = setting(
        (),
        "Lists of ids (MD5 of URL and caption) of pairs that are dropped.",
        changes=Stage.PARSE,
        by_content=True,
        check=_a_list,
    )
    filters: tuple[str, ...] = setting(
        (),
        "Custom filters, as module:factory, in this order, after all others (docs/library.md).",
        changes=Stage.PARSE,
        or_factory=True,
        check=each(factory),
    )
    jobs: int = setting(
        0,
        "Processes that parse the WAT files of a partition; 0 means one per core.",
        changes=None,
        unit="processes",
        minimum=0,
        maximum=1_024,
    )
    language_min_bytes: int = setting(
        5, "Shorter captions (in UTF-8) get no language.", changes=Stage.PARSE, unit="bytes", minimum=0
    )
    language_max_bytes: int = setting(
        2000,
        "Most bytes (UTF-8) of a caption examined: py3langid takes its start, CLD3 pieces from all of it.",
        changes=Stage.PARSE,
        unit="bytes",
        minimum=1,
    )
    languages: tuple[str, ...] = setting(
        (),
        "Keep only captions in these languages, by the detector's codes; `none` for captions without a "
        "language. Empty: all.",
        changes=Stage.PARSE,
    )
    language_min_probability: float = setting(
        0.1,
        "py3langid: less likely languages count as none; CLD3 has its own rule.",
        changes=Stage.PARSE,
        unit="probability",
        minimum=0,
        maximum=1,
    )
