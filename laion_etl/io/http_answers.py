"""Whether the answer of a web server means "later", and how much later."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from laion_etl.core.busy_codes import BUSY_STATUS

# What S3, CloudFront ("There might be too much traffic or a configuration error") and others write.
_THROTTLED = re.compile(
    rb"slow\s*down|request\s*rate|rate\s*(?:limit|exceeded)|too\s*many\s*requests|too\s*much\s*traffic"
    rb"|throttl|request\s*limit",
    re.IGNORECASE,
)
_DENIED = re.compile(rb"<Code>\s*AccessDenied\s*</Code>", re.IGNORECASE)


def busy_answer(status: int, headers: Mapping[str, str], page: bytes) -> bool:
    """Whether an answer means that the same request may succeed later.

    408, 429, 500, 502, 503 and 504 do. 403 has two meanings at Common Crawl: too many requests, or no
    permission. It counts as busy if the server says when to come back (Retry-After) or if its page speaks of
    the rate of requests; S3's `AccessDenied` never does. Any other 403, with an empty page too, is final: a
    wrong address or missing credentials would otherwise be found out only after many minutes.
    """
    if status == HTTPStatus.FORBIDDEN:
        has_date = any(name.lower() == "retry-after" for name in headers)
        return not _DENIED.search(page) and (has_date or bool(_THROTTLED.search(page)))
    return status in BUSY_STATUS


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float:
    """Returns the seconds that Retry-After asks to wait (RFC 9110 10.2.3: a number or a date); 0 without."""
    found = [value for name, value in headers.items() if name.lower() == "retry-after"]
    value = found[0].strip() if found else ""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return max(0.0, date - (time.time() if now is None else now))
