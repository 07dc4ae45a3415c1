"""Settings of the parse stage."""

from dataclasses import dataclass, replace

from laion_etl.settings.fields import setting


@dataclass(frozen=True, slots=True)
class ParseSettings:
    """Rules for links and alt texts (LAION-5B section 3, and the original's code)."""

    preset: str = setting(
        "default", "Defaults of this group: default, or laion5b for the original's rules without ours."
    )
    min_alt_chars: int = setting(5, "Shortest alt text kept, characters.")
    max_alt_chars: int = setting(2000, "Alt text is cut after this many characters.")
    max_url_chars: int = setting(2000, "Longest URL kept, characters.")
    max_host_chars: int = setting(60, "Longest host name kept, characters.")
    refused_extensions: tuple[str, ...] = setting(
        (".svg", ".gif"), "URL path endings that are out, comma separated."
    )
    language_detector: str = setting(
        "cld3",
        "Language detector: cld3 (the original's), py3langid (better on short texts), none, module:factory.",
    )
    refuse_trackers: bool = setting(True, "Tracking pixels, by host and file name, are out.")
    refuse_placeholder_words: bool = setting(True, 'Texts such as "image", "logo" or "no photo" are out.')
    refuse_placeholder_file_names: bool = setting(True, 'Texts such as "IMG_1234.JPG" are out.')
    refuse_placeholder_hashes: bool = setting(
        True, "Texts that are a hash, a UUID or another identifier are out."
    )
    refuse_placeholder_dates: bool = setting(True, "Texts of nothing but numbers, dates and times are out.")
    max_text_repeats: int = setting(
        100, "Pairs with the same text kept of one WAT file (boilerplate); 0 keeps all."
    )
    dedupe_pairs: int = setting(
        1_000_000,
        "Pairs remembered for duplicates within a partition, up to 43 bytes each; beyond it the oldest are "
        "forgotten, and Postgres finds what then slips through.",
    )
    blocked_domains: tuple[str, ...] = setting(
        (), "Lists of domains that are out: paths, s3:// or https://, comma separated (docs/blocklists.md)."
    )
    blocked_urls: tuple[str, ...] = setting((), "Lists of URLs and folders of URLs that are out.")
    blocked_url_patterns: tuple[str, ...] = setting(
        (), "Lists of RE2 expressions; URLs with a match are out."
    )
    blocked_pairs: tuple[str, ...] = setting((), "Lists of pair ids (MD5 of URL and text) that are out.")
    jobs: int = setting(0, "Processes that parse the WAT files of a partition; 0 means one per core.")
    language_min_bytes: int = setting(5, "Shorter texts get no language, UTF-8 bytes.")
    language_max_bytes: int = setting(
        2000, "Most UTF-8 bytes of a text looked at: py3langid takes its start, CLD3 pieces of all of it."
    )
    languages: tuple[str, ...] = setting(
        (),
        "Languages of texts that are kept, as the detector names them, comma separated; `none` for texts "
        "without one. Empty: all.",
    )
    language_min_probability: float = setting(
        0.1, "py3langid: less likely languages count as none; CLD3 has a rule of its own."
    )

    def rules(self) -> "ParseSettings":
        """These settings without what changes no output, for the fingerprint of a partition.

        Nor the places of blocklists: what is in them is part of the fingerprint by itself.
        """
        return replace(
            self,
            jobs=0,
            preset="",
            blocked_domains=(),
            blocked_urls=(),
            blocked_url_patterns=(),
            blocked_pairs=(),
        )
