"""Knobs of the stages that gather samples: parse, load, plan, download."""

from dataclasses import dataclass, replace

from laion_etl.settings.knob import knob


@dataclass(frozen=True, slots=True)
class ParseSettings:
    """Rules for links and alt texts (LAION-5B section 3, and the original's code)."""

    preset: str = knob(
        "default", "Defaults of this group: default, or laion5b for the original's rules without ours."
    )
    min_alt_chars: int = knob(5, "Shortest alt text kept, characters.")
    max_alt_chars: int = knob(2000, "Alt text is cut after this many characters.")
    max_url_chars: int = knob(2000, "Longest URL kept, characters.")
    max_host_chars: int = knob(60, "Longest host name kept, characters.")
    refused_extensions: tuple[str, ...] = knob(
        (".svg", ".gif"), "URL path endings that are out, comma separated."
    )
    language_detector: str = knob(
        "cld3",
        "Language detector: cld3 (the original's), py3langid (better on short texts), none, module:factory.",
    )
    refuse_trackers: bool = knob(True, "Tracking pixels, by host and file name, are out.")
    refuse_placeholder_words: bool = knob(True, 'Texts such as "image", "logo" or "no photo" are out.')
    refuse_placeholder_file_names: bool = knob(True, 'Texts such as "IMG_1234.JPG" are out.')
    refuse_placeholder_hashes: bool = knob(
        True, "Texts that are a hash, a UUID or another identifier are out."
    )
    refuse_placeholder_dates: bool = knob(True, "Texts of nothing but numbers, dates and times are out.")
    max_text_repeats: int = knob(
        100, "Pairs with the same text kept of one WAT file (boilerplate); 0 keeps all."
    )
    dedupe_pairs: int = knob(
        1_000_000,
        "Pairs remembered for duplicates within a partition, up to 43 bytes each; beyond it the oldest are "
        "forgotten, and Postgres finds what then slips through.",
    )
    blocked_domains: tuple[str, ...] = knob(
        (), "Lists of domains that are out: paths, s3:// or https://, comma separated (docs/blocklists.md)."
    )
    blocked_urls: tuple[str, ...] = knob((), "Lists of URLs and folders of URLs that are out.")
    blocked_url_patterns: tuple[str, ...] = knob((), "Lists of RE2 expressions; URLs with a match are out.")
    blocked_pairs: tuple[str, ...] = knob((), "Lists of pair ids (MD5 of URL and text) that are out.")
    jobs: int = knob(0, "Processes that parse the WAT files of a partition; 0 means one per core.")
    language_min_bytes: int = knob(5, "Shorter texts get no language, UTF-8 bytes.")
    language_max_bytes: int = knob(
        2000, "Most UTF-8 bytes of a text looked at: py3langid takes its start, CLD3 pieces of all of it."
    )
    languages: tuple[str, ...] = knob(
        (),
        "Languages of texts that are kept, as the detector names them, comma separated; `none` for texts "
        "without one. Empty: all.",
    )
    language_min_probability: float = knob(
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


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What counts as a duplicate."""

    dedupe: str = knob(
        "pair",
        "pair: URL and text together (the original's rule); url: the URL alone, the best text is kept. "
        "Fixed by the first load into a database.",
    )
    connections: int = knob(2, "Connections through which the rows of a partition go side by side.")


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """How new pairs are cut into batches."""

    batch_size: int = knob(10_000, "Pairs per batch at most (the original's work unit).")
    max_pairs_per_host: int = knob(
        1_000, "Pairs of one host in a batch at most; a crawl of few hosts gets more and smaller batches."
    )
    per_language: bool = knob(
        False, "Batches of one language; languages without a full batch share theirs with each other."
    )
    window_pairs: int = knob(1_000_000, "Pairs dealt out to batches together, about 0.6 kB of memory each.")


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """The downloader: limits for hostile servers and images, and what is kept."""

    connections: int = knob(
        0, "Links in flight at once in one worker; 0: as many as the network, resolver and cores can take."
    )
    connections_per_host: int = knob(8, "Links in flight at once to one host (politeness).")
    connections_per_domain: int = knob(16, "Links in flight at once to one registered domain.")
    requests_per_host_s: float = knob(20.0, "Most requests a second to one host; 0: no limit.")
    requests_per_domain_s: float = knob(50.0, "Most requests a second to one registered domain; 0: no limit.")
    retries: int = knob(
        1, "Further tries of a link that failed for a reason that passes: 5xx, 429, a broken connection."
    )
    longest_wait_s: float = knob(
        30.0, "A host that asks for a longer wait (Retry-After) gets no more requests in this batch, seconds."
    )
    nameservers: tuple[str, ...] = knob(
        (),
        "Asked over UDP and TCP by our own resolver: addresses (with :port), or 'system' for those of "
        "/etc/resolv.conf. Empty: the system's getaddrinfo, in threads.",
    )
    resolve_timeout_s: float = knob(5.0, "One try to resolve a name, seconds.")
    connect_timeout_s: float = knob(5.0, "TCP connection, all addresses of a host, seconds.")
    tls_timeout_s: float = knob(5.0, "TLS handshake, seconds.")
    first_byte_timeout_s: float = knob(10.0, "From the request to the first byte of the answer, seconds.")
    idle_timeout_s: float = knob(5.0, "Silence in the middle of an answer, seconds.")
    timeout_s: float = knob(20.0, "One link in all its hops, without waiting for its turn, seconds.")
    max_redirects: int = knob(5, "Redirect hops followed; every hop is checked like the first.")
    max_bytes: int = knob(20_000_000, "Longest image body read, before and after decompression, bytes.")
    min_bytes: int = knob(5_000, "Smallest image kept, bytes (the original's rule).")
    max_pixels: int = knob(89_478_484, "Largest image decoded, pixels (the original's rule).")
    min_side: int = knob(0, "Images with a shorter side than this are out, pixels.")
    max_aspect_ratio: float = knob(
        0.0, "Images longer than this many times their width are out; 0: no limit."
    )
    decode_timeout_s: float = knob(10.0, "One decode in its worker process, seconds.")
    decode_memory_mb: int = knob(2_048, "Address space of a decoder process, MiB.")
    decoders: int = knob(0, "Decoder processes; 0 means one per core.")
    resize_mode: str = knob(
        "keep_ratio",
        "As in img2dataset: no, keep_ratio (shorter side to image_size), keep_ratio_largest (longer side), "
        "center_crop, border (white).",
    )
    image_size: int = knob(256, "Side that resize_mode scales to, pixels.")
    resize_only_if_bigger: bool = knob(
        True, "Images that are small enough are not scaled up; if plain they stay as they came, byte by byte."
    )
    encode_format: str = knob("jpg", "What images that were changed are stored as: jpg, webp, png or avif.")
    encode_quality: int = knob(95, "Quality of JPEG, WebP and AVIF, 1 to 100.")
    perceptual_hashes: bool = knob(
        True,
        "Compute phash and PDQ. Off, images that are stored as they came are not decoded: only their "
        "headers and ends are checked.",
    )
    ports: tuple[int, ...] = knob((80, 443), "Ports a link may name, comma separated.")
    connect_to: tuple[str, ...] = knob(
        (),
        "Test and demo only: 'host-pattern=address:port' entries, comma separated, that are "
        "connected to instead of resolved, exempt from the address guard and from rate limits.",
    )
    allow_networks: tuple[str, ...] = knob(
        (), "Test and benchmark only: networks (CIDR) that the address guard lets through."
    )
    verify_tls: bool = knob(
        True, "Refuse bad certificates; off accepts them, as the original did: anybody on the way can answer."
    )
    user_agent: str = knob(
        "laion_etl/0.1 (operator contact not set)",
        "User-Agent sent; name yourself and a contact URL.",
    )
    opt_out: bool = knob(
        True,
        "Honour what answers and images say: X-Robots-Tag noai, noimageai, noindex, noimageindex, noml; "
        "tdm-reservation; IPTC/PLUS data mining and C2PA training properties.",
    )
    tdmrep: bool = knob(True, "Honour /.well-known/tdmrep.json (W3C TDMRep), one request per host.")
    robots_txt: bool = knob(True, "Honour robots.txt (RFC 9309), one request per host.")
    hash_blocklist: str = knob(
        "", "File of MD5 or SHA-256 hex digests, one a line; matching images are never written."
    )
    pdq_blocklist: str = knob(
        "", "File of PDQ hashes, 64 hex digits a line; images near to one are never written."
    )
    pdq_distance: int = knob(31, "Bits of 256 in which a PDQ hash may differ from a blocked one.")
    metrics_file: str = knob(
        "", "Prometheus text file (for node_exporter's textfile collector) kept up to date by a worker."
    )
    grace_s: float = knob(
        20.0, "After SIGTERM a worker has this long to finish its batch, then gives it back, seconds."
    )
    lease_s: int = knob(120, "A claimed batch whose worker is silent this long is given to another.")
    max_attempts: int = knob(3, "Claims of a batch before it is parked as failed.")
