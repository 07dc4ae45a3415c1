"""Counts outcomes: every input record of a stage ends in `kept` or in exactly one named reason.

The reasons of all stages are the Enums below; their values appear in stats files, shard parquet
(`status`), the report and the docs, so renaming one changes the data format. Each reason has its sentence
here and nowhere else: the tables of docs/formats.md (`make docs`), card and dashboard are generated from it.
"""

import re
from collections import Counter
from typing import Generic, TypeVar

from laion_etl.core.documented_enum import DocumentedEnum

REASON_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")  # what reasons of custom filters and rules look like


class Reason(DocumentedEnum):
    """A drop reason: its name in the data, and the sentence that documents it."""


_INTERNAL_ERROR = "A rule raised an unexpected exception"
_EXAMPLES = "`details.internal_errors` of the stats has the first ones."


class RecordReason(Reason):
    """Why a WAT record gave no page (parse, `details.records`)."""

    NOT_A_PAGE = "not_a_page", "A request, metadata or warcinfo record, or a response that is not HTML."
    BROKEN_JSON = "broken_json", "The record is not valid JSON of the expected form."
    PAGE_URL_TOO_LONG = (
        "page_url_too_long",
        "The page's URL is longer than 8,192 bytes, which browsers and servers refuse.",
    )
    PAGE_URL_INVALID = (
        "page_url_invalid",
        "The page's URL contains a NUL character, which Postgres cannot store.",
    )
    PAGE_UNREADABLE = (
        "page_unreadable",
        "The body of a response in a WARC file has an unknown or broken compression, or its HTML takes more "
        "than 1 GiB of memory or 10 s of CPU time to parse.",
    )
    DAMAGED = "damaged", "The gzip member is cut off or corrupt, or holds bytes that are not a WARC record."
    INTERNAL_ERROR = "internal_error", f"{_INTERNAL_ERROR} for the record; {_EXAMPLES}"


class ParseReason(Reason):
    """Why an image link of a page gave no pair; if several apply, the first in this order is counted."""

    NO_URL = "no_url", "The image has no URL."
    NO_ALT = "no_alt", "The image has no caption."
    ALT_TOO_SHORT = "alt_too_short", "The caption has fewer than `min_alt_chars` characters after cleaning."
    URL_INVALID = (
        "url_invalid",
        "The address is not a valid URL, contains a user name, is a template (`{{ src }}`) not filled in, "
        "`undefined` or `null`, or leads to the page itself.",
    )
    URL_SCHEME = "url_scheme", "The URL is not http(s): `data:`, `javascript:`, `blob:` ..."
    URL_EXTENSION = "url_extension", "The URL ends in one of `refused_extensions`: `.svg`, `.gif`."
    HOST_TOO_LONG = "host_too_long", "The host name is longer than `max_host_chars`."
    URL_TOO_LONG = "url_too_long", "The URL is longer than `max_url_chars`."
    HOST_NOT_PUBLIC = (
        "host_not_public",
        "The host is a single label (`http://wiki/`), a private name (`.local`, `.lan` ...), a name that "
        "cannot be looked up (`a..com`) or an address that is not public.",
    )
    TRACKER = (
        "tracker",
        "The image is a tracking pixel: a known host (`laion_etl/core/data/trackers.txt`), `1x1.png`, "
        "`spacer.png` and the like.",
    )
    BLOCKED_DOMAIN = "blocked_domain", "The domain is on a blocklist (docs/blocklists.md)."
    BLOCKED_URL = "blocked_url", "The URL is on a blocklist."
    PLACEHOLDER_FILE_NAME = "placeholder_file_name", 'The caption is a file name: "IMG_1234.JPG".'
    PLACEHOLDER_DATE = "placeholder_date", "The caption consists of numbers, dates and times only."
    PLACEHOLDER_HASH = "placeholder_hash", "The caption is a hash, a UUID or another identifier."
    PLACEHOLDER_WORD = (
        "placeholder_word",
        'The caption is a word such as "image", "logo", "no photo", "Bild 3", in the most common languages '
        "of the web.",
    )
    BLOCKED_PAIR = "blocked_pair", "The pair of URL and caption is on a blocklist."
    DUPLICATE = "duplicate_in_partition", "The same URL and caption occurred earlier in the partition."
    SAME_ID = (
        "same_id",
        "Another pair, earlier in the partition, has the same id: URL and caption are the same text, "
        "divided at another place.",
    )
    TEXT_REPEATED = (
        "text_repeated",
        "The caption occurred more than `max_text_repeats` times in the WAT file: boilerplate.",
    )
    LANGUAGE_NOT_ASKED_FOR = (
        "language_not_asked_for",
        "The caption is in none of the languages that `LAION_ETL_PARSE_LANGUAGES` keeps.",
    )
    NOT_STORABLE = (
        "not_storable",
        "A text of the pair contains a NUL character or is not UTF-8, which Postgres cannot store.",
    )
    INTERNAL_ERROR = "internal_error", f"{_INTERNAL_ERROR} for the link; {_EXAMPLES}"


class LoadReason(Reason):
    """Why a pair of a partition is not a new row in Postgres."""

    DUPLICATE_IN_PARTITION = (
        "duplicate_in_partition",
        "The same pair occurred earlier in the partition; parse, with limited memory, missed it.",
    )
    DUPLICATE_IN_CRAWL = "duplicate_in_crawl", "Another partition of the crawl has the same pair."
    DUPLICATE_OF_EARLIER_CRAWL = "duplicate_of_earlier_crawl", "An earlier crawl has the same pair."


class DownloadStatus(Reason):
    """The outcome of one link; `SUCCESS` is `kept`, everything else a reason."""

    SUCCESS = "success", "The image is in the shard."
    URL_INVALID = "url_invalid", "The URL, or one that it redirects to, cannot be requested."
    PORT_REFUSED = "port_refused", "The URL names a port that is not in `ports`."
    DNS_FAILED = "dns_failed", "The host name does not exist or has no address."
    RESOLVER_FAILED = "resolver_failed", "No nameserver answered, which says nothing about the host."
    ADDRESS_REFUSED = (
        "address_refused",
        "The host has a private, loopback, link-local or other special address.",
    )
    CONNECT_FAILED = "connect_failed", "The host refused the connection or cannot be reached."
    CONNECT_TIMEOUT = "connect_timeout", "The connection took longer than `connect_timeout_s`."
    TLS_FAILED = "tls_failed", "The TLS handshake failed, or the certificate is bad."
    TIMEOUT = "timeout", "The response took longer than one of the time limits."
    BAD_RESPONSE = "bad_response", "The response is not HTTP, is cut off, or has the wrong length."
    HTTP_ERROR = "http_error", "The server answered with an error; its status is in `error_message`."
    TOO_MANY_REDIRECTS = "too_many_redirects", "There were more than `max_redirects` redirects."
    OPTED_OUT_ROBOTS_TAG = "opted_out_robots_tag", "The header X-Robots-Tag has noai or an equivalent."
    OPTED_OUT_TDM = (
        "opted_out_tdm",
        "A tdm-reservation or content-usage header, a Link to RSL terms or tdmrep.json reserves the rights.",
    )
    OPTED_OUT_ROBOTS_TXT = (
        "opted_out_robots_txt",
        "The host's robots.txt disallows the URL, or training, or names RSL terms.",
    )
    ROBOTS_UNREACHABLE = (
        "robots_unreachable",
        "The host's robots.txt cannot be read (429, 5xx, no answer), so nothing is fetched; no opt-out.",
    )
    OPTED_OUT_METADATA = (
        "opted_out_metadata",
        "Metadata of the image forbid data mining or training: IPTC/PLUS, C2PA, or words such as NoAI.",
    )
    TOO_MANY_BYTES = "too_many_bytes", "The image is larger than `max_bytes`."
    TOO_FEW_BYTES = "too_few_bytes", "The image is smaller than `min_bytes`."
    NOT_AN_IMAGE = "not_an_image", "The response is not an image."
    FORMAT_REFUSED = (
        "format_refused",
        "It is an image, but neither JPEG, PNG nor WebP (or AVIF with `accept_avif`); `error_message` names "
        "its format.",
    )
    ANIMATED = "animated", "The image is animated."
    TOO_MANY_PIXELS = "too_many_pixels", "The image has more than `max_pixels` pixels."
    TOO_FEW_PIXELS = "too_few_pixels", "A side of the image is shorter than `min_side`."
    ASPECT_RATIO = (
        "aspect_ratio",
        "The longer side of the image is more than `max_aspect_ratio` times the shorter one.",
    )
    SIDE_TOO_LONG = "side_too_long", "A side of the image is longer than the 65,500 pixels of a JPEG."
    TOO_MANY_SCANS = "too_many_scans", "The JPEG has over a hundred scans, which take very long to decode."
    DECODE_FAILED = "decode_failed", "The image is damaged and cannot be decoded."
    DECODE_TIMEOUT = "decode_timeout", "Decoding took longer than `decode_timeout_s`."
    DECODER_CRASHED = (
        "decoder_crashed",
        "Decoding the image ended the decoder's process, for example at its memory limit.",
    )
    REFUSED_BY_RULE = (
        "refused_by_rule",
        "A custom rule (`image_rules`) refused the image; its reason is in `error_message`.",
    )
    INTERNAL_ERROR = "internal_error", "A custom rule raised an exception, which is in `error_message`."
    BLOCKED_HASH = "blocked_hash", "The image's hash is on a blocklist, or close to one that is."


# Owners' wishes, in the order in which reports count them.
OPT_OUTS = (
    DownloadStatus.OPTED_OUT_ROBOTS_TAG,
    DownloadStatus.OPTED_OUT_TDM,
    DownloadStatus.OPTED_OUT_ROBOTS_TXT,
    DownloadStatus.OPTED_OUT_METADATA,
)


class ScoreReason(Reason):
    """Why a sample of a shard is not in the scored shard."""

    LOW_SIMILARITY = "low_similarity", "The similarity of image and caption is below the threshold."
    SUSPECTED_UNDERAGE = (
        "suspected_underage",
        "The image may show minors and is tagged NSFW or UNSURE, or unsafe by the NSFW head: such a sample "
        "is never published.",
    )
    UNREADABLE = "unreadable", "The image cannot be decoded or is larger than the `max_pixels` of CLIP."
    NOT_SCORED = (
        "not_scored",
        "A score of the sample is not a finite number, so it was not checked: it has no scores.",
    )


class PublishReason(Reason):
    """Why a kept sample of a scored shard is not in the dataset."""

    DUPLICATE_IMAGE = "duplicate_image", "A better pair of the crawl has the same image file."
    NEAR_DUPLICATE_IMAGE = "near_duplicate_image", "A better pair of the crawl has a nearly equal image."
    DUPLICATE_IMAGE_OF_EARLIER_CRAWL = (
        "duplicate_image_of_earlier_crawl",
        "The dataset has the same image file from an earlier crawl.",
    )
    NEAR_DUPLICATE_IMAGE_OF_EARLIER_CRAWL = (
        "near_duplicate_image_of_earlier_crawl",
        "The dataset has a nearly equal image from an earlier crawl.",
    )
    SEMANTIC_DUPLICATE_IMAGE = (
        "semantic_duplicate_image",
        "A better pair of the crawl has an image of nearly the same CLIP embedding (`semantic_duplicates`).",
    )
    NEAR_EVALUATION_SET = (
        "near_evaluation_set",
        "The image is near one of an evaluation set by its CLIP embedding (`evaluation_sets`).",
    )
    TAGGED_NSFW = "tagged_nsfw", "The sample is tagged NSFW (research-safe only)."
    TAGGED_UNSURE = "tagged_unsure", "The sample is tagged UNSURE (research-safe, where settings say so)."
    NOT_CHECKED_FOR_SAFETY = (
        "not_checked_for_safety",
        "The sample has no safety tag or no punsafe (research-safe only).",
    )
    PUNSAFE_OVER_LIMIT = (
        "punsafe_over_limit",
        "The sample's punsafe is above `safe_max_punsafe` (research-safe only).",
    )
    REMOVED_BY_REQUEST = "removed_by_request", "A removal request names the sample."


STAGE_REASONS: dict[str, type[Reason]] = {
    "records": RecordReason,
    "parse": ParseReason,
    "load": LoadReason,
    "download": DownloadStatus,
    "score": ScoreReason,
    "publish": PublishReason,
}


def sentence_of(stage: str, reason: str) -> str:
    """Returns what a reason of a stage means; '' for a reason of another version."""
    for reasons in (STAGE_REASONS.get(stage, PublishReason), PublishReason):  # removal counts in every stage
        for known in reasons:
            if known.value == reason:
                return known.sentence
    return ""


ReasonT = TypeVar("ReasonT", bound=Reason)


class Outcomes(Generic[ReasonT]):
    """Counts of one stage over one unit of work."""

    def __init__(self) -> None:
        self.kept = 0
        self._dropped: Counter[ReasonT] = Counter()

    def keep(self, count: int = 1) -> None:
        self.kept += count

    def drop(self, reason: ReasonT, count: int = 1) -> None:
        self._dropped[reason] += count

    def count(self, reason: ReasonT) -> int:
        """How many records ended for this reason."""
        return self._dropped[reason]

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
