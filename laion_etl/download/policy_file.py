"""What a request for robots.txt or tdmrep.json got, also if it is compressed and not labelled so."""

from typing import NamedTuple

from laion_etl.download.content_encoding import content_decoder
from laion_etl.download.link_failed import LinkFailed

MAX_POLICY_FILE_BYTES = 512_000  # RFC 9309, section 2.5: at least 500 KiB must be parsed
# Compressed data whose beginning no text has; those of zlib in its usual three levels.
_GZIP, _ZLIB, _ZSTD = b"\x1f\x8b", (b"\x78\x01", b"\x78\x9c", b"\x78\xda"), b"\x28\xb5\x2f\xfd"
_MAX_LAYERS = 2


class PolicyFile(NamedTuple):
    """What a request for a policy file got, after redirects: at most MAX_POLICY_FILE_BYTES of the body.

    `cut_off`: it, or its compressed data, did not come to their end or are damaged.
    """

    status: int
    body: bytes
    retry_after_s: float | None = None
    cut_off: bool = False


def inflated(answer: PolicyFile) -> PolicyFile:
    """Returns a file that is compressed and not labelled so; what cannot be inflated counts as cut off."""
    for _ in range(_MAX_LAYERS):
        body = answer.body
        if not body.startswith((_GZIP, *_ZLIB)):
            break
        decode, text = content_decoder(["gzip"], MAX_POLICY_FILE_BYTES), bytearray()
        try:
            for data in decode(body):
                text += data
                if len(text) >= MAX_POLICY_FILE_BYTES:
                    break
        except LinkFailed:
            return answer._replace(cut_off=True)
        is_whole = not decode.unfinished or len(text) >= MAX_POLICY_FILE_BYTES
        answer = answer._replace(
            body=bytes(text[:MAX_POLICY_FILE_BYTES]), cut_off=answer.cut_off or not is_whole
        )
    return answer._replace(cut_off=True) if answer.body.startswith(_ZSTD) else answer
