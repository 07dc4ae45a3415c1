"""Settings of the download stage.

Longer than 300 lines: a setting is a declaration of several lines, and a stage's settings are one class.
"""

from dataclasses import dataclass
from typing import ClassVar

from laion_etl.settings.checks import each, factory, header_value, nameserver, network, not_empty, override
from laion_etl.settings.fields import Group, Stage, setting


@dataclass(frozen=True, slots=True)
class DownloadSettings(Group):
    """The downloader: limits against hostile servers and images, and which images are kept."""

    GROUP: ClassVar[str] = "download"
    ASCENDING: ClassVar[tuple[tuple[str, str], ...]] = (("min_bytes", "max_bytes"),)

    connections: int = setting(
        0,
        "Links in flight at once in one worker; 0: as many as network, resolver and cores can handle.",
        changes=None,
        unit="links",
        minimum=0,
        maximum=100_000,
    )
    connections_per_host: int = setting(
        8,
        "Links in flight at once to one host (politeness).",
        changes=None,
        unit="links",
        minimum=1,
    )
    connections_per_domain: int = setting(
        16,
        "Links in flight at once to one registered domain.",
        changes=None,
        unit="links",
        minimum=1,
    )
    requests_per_host_s: float = setting(
        20.0,
        "Most requests per second to one host; 0: no limit.",
        changes=None,
        unit="1/s",
        minimum=0,
    )
    requests_per_domain_s: float = setting(
        50.0,
        "Most requests per second to one registered domain; 0: no limit.",
        changes=None,
        unit="1/s",
        minimum=0,
    )
    fleet_requests_per_host_s: float = setting(
        100.0,
        "Most requests per second to one host from all workers of a database together: each takes an equal "
        "share, at most requests_per_host_s. 0: no such limit.",
        changes=None,
        unit="1/s",
        minimum=0,
    )
    fleet_requests_per_domain_s: float = setting(
        250.0,
        "Most requests per second to one registered domain from all workers of a database together. 0: no "
        "such limit.",
        changes=None,
        unit="1/s",
        minimum=0,
    )
    retries: int = setting(
        1,
        "Retries of a link after a temporary failure: 5xx, 429, 408, a broken connection; also of "
        "robots.txt.",
        changes=Stage.DOWNLOAD,
        minimum=0,
        maximum=100,
    )
    longest_wait_s: float = setting(
        30.0,
        "Longest Retry-After honoured; hosts that ask for longer are skipped for the rest of the batch.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0,
    )
    nameservers: tuple[str, ...] = setting(
        (),
        "Nameservers for our own resolver (UDP and TCP): addresses, optionally with :port, or 'system' for "
        "those in /etc/resolv.conf. Empty: the system's getaddrinfo, in threads.",
        changes=None,
        check=each(nameserver),
    )
    resolve_timeout_s: float = setting(
        5.0,
        "Time limit of one attempt to resolve a name.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0.001,
    )
    connect_timeout_s: float = setting(
        5.0,
        "Time limit of the TCP connection, over all addresses of a host.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0.001,
    )
    tls_timeout_s: float = setting(
        5.0,
        "Time limit of the TLS handshake.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0.001,
    )
    first_byte_timeout_s: float = setting(
        10.0,
        "Time limit from the request to the first byte of the response.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0.001,
    )
    idle_timeout_s: float = setting(
        5.0,
        "Longest silence within a response.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0.001,
    )
    timeout_s: float = setting(
        20.0,
        "Time limit of one link with all its redirects, not counting the wait for a request slot.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0.001,
    )
    max_redirects: int = setting(
        5,
        "Most redirects followed; every hop is checked like the first.",
        changes=Stage.DOWNLOAD,
        unit="hops",
        minimum=0,
        maximum=100,
    )
    max_bytes: int = setting(
        20_000_000,
        "Largest image body read, before and after decompression.",
        changes=Stage.DOWNLOAD,
        unit="bytes",
        minimum=1,
    )
    min_bytes: int = setting(
        5_000,
        "Smallest image kept (the original's rule).",
        changes=Stage.DOWNLOAD,
        unit="bytes",
        minimum=0,
    )
    max_pixels: int = setting(
        89_478_484,
        "Largest image decoded (the original's rule).",
        changes=Stage.DOWNLOAD,
        unit="px",
        minimum=1,
    )
    min_side: int = setting(
        0,
        "Images with a side shorter than this are dropped.",
        changes=Stage.DOWNLOAD,
        unit="px",
        minimum=0,
    )
    max_aspect_ratio: float = setting(
        0.0,
        "Images whose longer side exceeds the shorter one this many times are dropped; 0: no limit.",
        changes=Stage.DOWNLOAD,
        unit="ratio",
        minimum=0,
    )
    accept_avif: bool = setting(
        False,
        "Also accept AVIF, which the original did not; such images are stored as encode_format.",
        changes=Stage.DOWNLOAD,
    )
    decode_timeout_s: float = setting(
        10.0,
        "Time limit of one decode in its worker process.",
        changes=Stage.DOWNLOAD,
        unit="s",
        minimum=0.001,
    )
    decode_memory_mb: int = setting(
        2_048,
        "Memory limit (address space) of a decoder process.",
        changes=Stage.DOWNLOAD,
        unit="MiB",
        minimum=64,
    )
    decoders: int = setting(
        0,
        "Decoder processes; 0 means one per core.",
        changes=None,
        unit="processes",
        minimum=0,
        maximum=1_024,
    )
    resize_mode: str = setting(
        "keep_ratio",
        "As in img2dataset: no, keep_ratio (shorter side to image_size), keep_ratio_largest (longer side), "
        "center_crop, border (white).",
        changes=Stage.DOWNLOAD,
        choices=("no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"),
    )
    image_size: int = setting(
        256,
        "Side that resize_mode scales to.",
        changes=Stage.DOWNLOAD,
        unit="px",
        minimum=1,
        maximum=65_535,
    )
    resize_only_if_bigger: bool = setting(
        True,
        "Do not scale up images that are small enough; if they need no other change, their bytes are kept.",
        changes=Stage.DOWNLOAD,
    )
    encode_format: str = setting(
        "jpg",
        "Format in which changed images are stored: jpg, webp, png or avif.",
        changes=Stage.DOWNLOAD,
        choices=("jpg", "webp", "png", "avif"),
    )
    encode_quality: int = setting(
        95,
        "Quality of JPEG, WebP and AVIF.",
        changes=Stage.DOWNLOAD,
        minimum=1,
        maximum=100,
    )
    perceptual_hashes: bool = setting(
        True,
        "Compute phash and PDQ. If false, JPEGs that are stored unchanged are not decoded: their segments "
        "show whether a decoder takes them, but not whether pixels are missing in front of the end marker.",
        changes=Stage.DOWNLOAD,
    )
    ports: tuple[int, ...] = setting(
        (80, 443),
        "Ports a link may name.",
        changes=Stage.DOWNLOAD,
        minimum=1,
        maximum=65_535,
        check=not_empty,
    )
    connect_to: tuple[str, ...] = setting(
        (),
        "Test and demo only: 'host-pattern=address:port' entries; such hosts are not resolved but connected "
        "to at this address, exempt from the address guard and from rate limits.",
        changes=None,
        check=each(override),
    )
    allow_networks: tuple[str, ...] = setting(
        (),
        "Test and benchmark only: networks (CIDR) that the address guard lets through.",
        changes=None,
        check=each(network),
    )
    verify_tls: bool = setting(
        True,
        "Refuse bad certificates. If false they are accepted, as the original did: anyone on the network "
        "path can answer.",
        changes=Stage.DOWNLOAD,
    )
    user_agent: str = setting(
        "laion_etl/0.1 (operator contact not set)",
        "User-Agent header; name yourself and a contact URL. robots.txt addresses its product token: MyBot "
        "in 'MyBot/1.0 (+url)' and in 'Mozilla/5.0 (compatible; MyBot/1.0; +url)'.",
        changes=Stage.DOWNLOAD,
        check=header_value,
    )
    opt_out: bool = setting(
        True,
        "Honour opt-outs in responses and images: X-Robots-Tag noai, noimageai, noindex, noimageindex, noml; "
        "tdm-reservation; Content-Usage; IPTC/PLUS data mining, C2PA training properties and words in "
        "metadata.",
        changes=Stage.DOWNLOAD,
    )
    tdmrep: bool = setting(
        True,
        "Honour /.well-known/tdmrep.json (W3C TDMRep), one request per host.",
        changes=Stage.DOWNLOAD,
    )
    robots_txt: bool = setting(
        True,
        "Honour robots.txt (RFC 9309, and its Content-Signal and Content-Usage), one request per host.",
        changes=Stage.DOWNLOAD,
    )
    image_rules: tuple[str, ...] = setting(
        (),
        "Custom rules for images, as module:factory, in this order (docs/library.md).",
        changes=Stage.DOWNLOAD,
        or_factory=True,
        check=each(factory),
    )
    hash_blocklist: str = setting(
        "",
        "File of MD5 or SHA-256 hex digests, one per line; matching images are never written.",
        changes=Stage.DOWNLOAD,
    )
    pdq_blocklist: str = setting(
        "",
        "File of PDQ hashes, 64 hex digits per line; images close to one are never written.",
        changes=Stage.DOWNLOAD,
    )
    pdq_distance: int = setting(
        31,
        "Largest distance, in bits of 256, at which a PDQ hash counts as a blocked one.",
        changes=Stage.DOWNLOAD,
        unit="bits",
        minimum=0,
        maximum=256,
    )
    metrics_file: str = setting(
        "",
        "Prometheus text file (for node_exporter's textfile collector) that a worker keeps up to date.",
        changes=None,
    )
    grace_s: float = setting(
        20.0,
        "Time a worker has to finish its batch after SIGTERM; then it returns the batch to the queue.",
        changes=None,
        unit="s",
        minimum=0,
    )
    lease_s: int = setting(
        120,
        "A claimed batch goes to another worker when its own sends no heartbeat for this long.",
        changes=None,
        unit="s",
        minimum=1,
    )
    outage_s: float = setting(
        600.0,
        "How long a worker waits in all, while it holds a batch, for a store, database or resolver that is "
        "unreachable, overloaded or full; then it returns the batch and ends with exit code 75.",
        changes=None,
        unit="s",
        minimum=0,
    )
    max_attempts: int = setting(
        3,
        "Claims of a batch after which it is parked as failed.",
        changes=None,
        unit="claims",
        minimum=1,
    )
