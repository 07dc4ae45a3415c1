"""Why links give no image, in words, and what would win them back.

A cause is one or more statuses of links, some told apart by the link's message (the status of the server's
answer, the format of an image). What owners wish has no remedy: opt-outs are kept.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from laion_etl.core.funnel import OPT_OUTS
from laion_etl.core.funnel import DownloadStatus as S
from laion_etl.download.link_failed import IN_A_CIRCLE

_NAMED_BY_MESSAGE = frozenset({S.HTTP_ERROR, S.FORMAT_REFUSED, S.TLS_FAILED, S.TOO_MANY_REDIRECTS})


@dataclass(frozen=True, slots=True)
class LossCause:
    """`sentence` continues "12% of links"; `remedy` is '' where nothing wins the links back.

    `is_sure`: with the remedy nearly all of the links get further; otherwise it helps some of them at most.
    """

    name: str
    statuses: tuple[S, ...]
    sentence: str
    remedy: str = ""
    is_sure: bool = False
    messages: str = ""  # a regular expression; '': any message

    @property
    def needs_no_message(self) -> bool:
        """Whether the status alone shows it."""
        return not self.messages and _NAMED_BY_MESSAGE.isdisjoint(self.statuses)


LOSS_CAUSES = (
    LossCause(
        "resolver_failed",
        (S.RESOLVER_FAILED,),
        "failed in DNS: the resolver is saturated or unreachable",
        "run a resolver nearby, or set LAION_ETL_DOWNLOAD_NAMESERVERS",
        is_sure=True,
    ),
    LossCause("host_gone", (S.DNS_FAILED,), "have hosts that no longer exist: usual for an old crawl"),
    LossCause(
        "image_gone", (S.HTTP_ERROR,), "no longer exist: the server answers 404 or 410", messages="404|410"
    ),
    LossCause(
        "too_many_requests",
        (S.HTTP_ERROR,),
        "were answered with 429: their servers want fewer requests",
        "lower LAION_ETL_DOWNLOAD_REQUESTS_PER_HOST_S and _FLEET_REQUESTS_PER_HOST_S, and raise _RETRIES",
        messages="429",
    ),
    LossCause(
        "server_trouble",
        (S.HTTP_ERROR,),
        "have servers in trouble (answers 500 to 599, 408 and the like)",
        "raise LAION_ETL_DOWNLOAD_RETRIES, or download them on another day",
        messages=r"5\d\d|408|421|425|499",  # as http_head.is_passing has them
    ),
    LossCause(
        "refused",
        (S.HTTP_ERROR,),
        "were refused by their servers (403, 401 and the like)",
        "name yourself and a contact in LAION_ETL_DOWNLOAD_USER_AGENT: some servers refuse unknown agents",
        messages="40[0-35-9]|4[1-9].",
    ),
    LossCause(
        "http_error",
        (S.HTTP_ERROR,),
        "were answered with an error, or with a status that has no image (204, 206 and the like)",
    ),
    LossCause(
        "connect_failed", (S.CONNECT_FAILED, S.CONNECT_TIMEOUT), "have hosts that accept no connection"
    ),
    LossCause(
        "timeout",
        (S.TIMEOUT,),
        "timed out: the network or the servers may be overloaded",
        "raise LAION_ETL_DOWNLOAD_FIRST_BYTE_TIMEOUT_S and _TIMEOUT_S, or set _CONNECTIONS lower",
    ),
    LossCause(
        "tls_failed",
        (S.TLS_FAILED,),
        "have servers with bad certificates (LAION_ETL_DOWNLOAD_VERIFY_TLS)",
        "set LAION_ETL_DOWNLOAD_VERIFY_TLS=false, as the original did, if anyone on the way may answer",
        is_sure=True,
        messages="certificate.*",
    ),
    LossCause(
        "tls_handshake",
        (S.TLS_FAILED,),
        "have servers with which no encrypted connection could be made: their TLS is too old, or silent",
    ),
    LossCause("bad_response", (S.BAD_RESPONSE,), "got an answer that is cut off, broken or not HTTP"),
    LossCause(
        "redirect_loop",
        (S.TOO_MANY_REDIRECTS,),
        "are redirected in a circle, mostly by servers that want a cookie first",
        messages=IN_A_CIRCLE,
    ),
    LossCause(
        "too_many_redirects",
        (S.TOO_MANY_REDIRECTS,),
        "lead from one redirect to the next",
        "raise LAION_ETL_DOWNLOAD_MAX_REDIRECTS",
    ),
    LossCause(
        "opted_out",
        OPT_OUTS,
        "were left out because their owners opted out",
    ),
    LossCause(
        "robots_unreachable",
        (S.ROBOTS_UNREACHABLE,),
        "have hosts whose robots.txt could not be read (429, 5xx, no answer ...), so they were left alone",
        "download them on another day, or raise LAION_ETL_DOWNLOAD_RETRIES",
    ),
    LossCause(
        "avif",
        (S.FORMAT_REFUSED,),
        "are AVIF images",
        "set LAION_ETL_DOWNLOAD_ACCEPT_AVIF=true; the original took none",
        is_sure=True,
        messages="AVIF",
    ),
    LossCause("other_format", (S.FORMAT_REFUSED,), "are images in another format (GIF, SVG ...)"),
    LossCause("not_an_image", (S.NOT_AN_IMAGE,), "lead to something other than an image, mostly a page"),
    LossCause(
        "too_small",
        (S.TOO_FEW_BYTES,),
        "are images of fewer than LAION_ETL_DOWNLOAD_MIN_BYTES bytes: icons and the like",
        "lower LAION_ETL_DOWNLOAD_MIN_BYTES; the original's rule is 5,000",
        is_sure=True,
    ),
    LossCause(
        "too_large",
        (S.TOO_MANY_BYTES, S.TOO_MANY_PIXELS),
        "are images of more bytes or pixels than allowed",
        "raise LAION_ETL_DOWNLOAD_MAX_BYTES or _MAX_PIXELS; each image takes that much memory",
        is_sure=True,
    ),
    LossCause(
        "shape",
        (S.TOO_FEW_PIXELS, S.ASPECT_RATIO),
        "have a side that is too short, or sides that are too unequal",
        "lower LAION_ETL_DOWNLOAD_MIN_SIDE, or raise _MAX_ASPECT_RATIO",
        is_sure=True,
    ),
    LossCause(
        "decoder",
        (S.DECODER_CRASHED, S.DECODE_TIMEOUT),
        "crashed a decoder or timed out in it",
        "raise LAION_ETL_DOWNLOAD_DECODE_MEMORY_MB or _DECODE_TIMEOUT_S, which may be too small",
    ),
    LossCause(
        "unusable",
        (S.DECODE_FAILED, S.SIDE_TOO_LONG, S.TOO_MANY_SCANS, S.ANIMATED),
        "are damaged, animated or made to exhaust a decoder",
    ),
    LossCause(
        "own_rules",
        (S.BLOCKED_HASH, S.REFUSED_BY_RULE),
        "were refused by your own blocklists and rules",
    ),
    LossCause(
        "rule_failed",
        (S.INTERNAL_ERROR,),
        "made one of your own rules fail",
        "correct the rule: the column error_message of their rows has its exception",
    ),
    LossCause(
        "port",
        (S.PORT_REFUSED,),
        "name a port that is not in LAION_ETL_DOWNLOAD_PORTS",
        "add the ports to LAION_ETL_DOWNLOAD_PORTS",
        is_sure=True,
    ),
    LossCause(
        "address",
        (S.URL_INVALID, S.ADDRESS_REFUSED),
        "lead to an invalid URL, or to an address that is not public",
    ),
)
_BY_STATUS = {
    status.value: [
        (re.compile(cause.messages) if cause.messages else None, cause)
        for cause in LOSS_CAUSES
        if status in cause.statuses
    ]
    for status in S
}
_UNKNOWN = LossCause("other", (), "ended for a reason of another version")


_NO_CONNECTION = (S.DNS_FAILED, S.RESOLVER_FAILED, S.CONNECT_FAILED, S.CONNECT_TIMEOUT)
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


def unused_proxy(kept: int, dropped: Mapping[str, int]) -> str:
    """Return a sentence if nothing could be connected to and a proxy is set; else ''."""
    lost = sum(dropped.get(status.value, 0) for status in _NO_CONNECTION)
    return proxy_advice() if not kept and 2 * lost > sum(dropped.values()) else ""


def proxy_advice() -> str:
    """Return what to do if a proxy is set; '' if there is none."""
    names = [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]
    if not names:
        return ""
    return (
        f"downloads do not use the proxy that {min(names)} names: workers look up names and connect to ports "
        "80 and 443 themselves; run them where that is allowed"
    )


def cause_of(status: str, message: str = "") -> LossCause:
    """Return the cause of a link that ended with this status and message."""
    for pattern, cause in _BY_STATUS.get(status, ()):
        if pattern is None or pattern.fullmatch(message):
            return cause
    return _UNKNOWN
