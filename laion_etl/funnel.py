"""Counting outcomes: every input record of a stage ends in `kept` or in exactly one named reason.

The reasons of all stages are the Enums below; their values appear in stats files, shard parquet
(`status`), the report and the docs, so renaming one is a change of the data format.
"""

from collections import Counter
from enum import StrEnum
from typing import Generic, TypeVar


class RecordReason(StrEnum):
    """Why a WAT record gave no page (parse, `details.records`)."""

    NOT_A_PAGE = "not_a_page"  # request, metadata or warcinfo records, responses without HTML
    BROKEN_JSON = "broken_json"
    PAGE_URL_TOO_LONG = "page_url_too_long"  # over 8,192 bytes, which browsers and servers refuse
    DAMAGED = "damaged"  # a gzip member that is cut off or corrupt


class ParseReason(StrEnum):
    """Why an image link of a page gave no pair; where several hold, the first of this order is counted."""

    NO_URL = "no_url"
    NO_ALT = "no_alt"
    ALT_TOO_SHORT = "alt_too_short"
    URL_INVALID = "url_invalid"
    URL_SCHEME = "url_scheme"  # not http(s): data:, javascript:, blob: ...
    URL_EXTENSION = "url_extension"  # .svg, .gif
    HOST_TOO_LONG = "host_too_long"
    URL_TOO_LONG = "url_too_long"
    HOST_NOT_PUBLIC = "host_not_public"  # single labels, private names and addresses
    TRACKER = "tracker"  # tracking pixels, by host or by file name
    BLOCKED_DOMAIN = "blocked_domain"
    BLOCKED_URL = "blocked_url"
    PLACEHOLDER_FILE_NAME = "placeholder_file_name"  # IMG_1234.JPG
    PLACEHOLDER_DATE = "placeholder_date"  # dates and numbers only
    PLACEHOLDER_HASH = "placeholder_hash"
    PLACEHOLDER_WORD = "placeholder_word"  # "image", "logo" ...
    BLOCKED_PAIR = "blocked_pair"
    DUPLICATE = "duplicate_in_partition"
    TEXT_REPEATED = "text_repeated"  # boilerplate: the same text on very many images of a WAT file
    LANGUAGE_NOT_ASKED_FOR = "language_not_asked_for"


class LoadReason(StrEnum):
    """Why a pair of a partition is no new row in Postgres."""

    DUPLICATE_IN_PARTITION = "duplicate_in_partition"  # what parse, which forgets, let through
    DUPLICATE_IN_CRAWL = "duplicate_in_crawl"
    DUPLICATE_OF_EARLIER_CRAWL = "duplicate_of_earlier_crawl"


class DownloadStatus(StrEnum):
    """The outcome of one link; `SUCCESS` is `kept`, everything else a reason."""

    SUCCESS = "success"
    URL_INVALID = "url_invalid"
    PORT_REFUSED = "port_refused"
    DNS_FAILED = "dns_failed"  # the name does not exist or has no address
    RESOLVER_FAILED = "resolver_failed"  # no nameserver could tell: says nothing about the host
    ADDRESS_REFUSED = "address_refused"  # private, loopback, link-local ... addresses
    CONNECT_FAILED = "connect_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    BAD_RESPONSE = "bad_response"  # not HTTP, cut off, wrong length
    HTTP_ERROR = "http_error"  # status in error_message
    TOO_MANY_REDIRECTS = "too_many_redirects"
    OPTED_OUT_ROBOTS_TAG = "opted_out_robots_tag"  # X-Robots-Tag: noai ...
    OPTED_OUT_TDM = "opted_out_tdm"  # tdm-reservation header, /.well-known/tdmrep.json
    OPTED_OUT_ROBOTS_TXT = "opted_out_robots_txt"
    OPTED_OUT_METADATA = "opted_out_metadata"  # IPTC/PLUS or C2PA in the image itself
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_FEW_BYTES = "too_few_bytes"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_REFUSED = "format_refused"  # an image, but not JPEG/PNG/WebP
    ANIMATED = "animated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_FEW_PIXELS = "too_few_pixels"  # a side shorter than min_side
    ASPECT_RATIO = "aspect_ratio"  # over max_aspect_ratio
    DECODE_FAILED = "decode_failed"
    DECODE_TIMEOUT = "decode_timeout"
    DECODER_CRASHED = "decoder_crashed"
    BLOCKED_HASH = "blocked_hash"


class ScoreReason(StrEnum):
    """Why a sample of a shard is not in the scored shard."""

    LOW_SIMILARITY = "low_similarity"
    SUSPECTED_UNDERAGE = "suspected_underage"  # together with NSFW or UNSURE: never published
    UNREADABLE = "unreadable"


ReasonT = TypeVar("ReasonT", bound=StrEnum)


class Outcomes(Generic[ReasonT]):
    """Counts of one stage over one unit of work."""

    def __init__(self) -> None:
        self.kept = 0
        self._dropped: Counter[ReasonT] = Counter()

    def keep(self, count: int = 1) -> None:
        self.kept += count

    def drop(self, reason: ReasonT, count: int = 1) -> None:
        self._dropped[reason] += count

    def add(self, other: "Outcomes[ReasonT]") -> None:
        self.kept += other.kept
        self._dropped.update(other._dropped)

    @property
    def dropped(self) -> dict[str, int]:
        """Count per reason, most frequent first, ties by name; zero counts left out."""
        ordered = sorted(self._dropped.items(), key=lambda item: (-item[1], item[0].value))
        return {reason.value: count for reason, count in ordered if count}

    @property
    def input(self) -> int:
        return self.kept + sum(self._dropped.values())
